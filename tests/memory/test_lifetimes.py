from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.graph import Graph
from netopt.memory.lifetimes import ALIGNMENT, Block, aligned, blocks_of
from netopt.ops import Arithmetic, Concat, Dense, Op, Permute, Pointwise, Reshape, Slice, Softmax, TensorType
from tests.memory.builder import Builder as SmallBuilder

RELU, TANH, ADD = Pointwise("relu"), Pointwise("tanh"), Arithmetic("add")


class Builder(SmallBuilder):
    """A graph of x (4, 4), 64 bytes, unless told otherwise."""

    def __init__(self, *inputs: str, shape: tuple[int, ...] = (4, 4)) -> None:
        super().__init__(*inputs, shape=shape)


def _sharing(graph: Graph) -> set[frozenset[str]]:
    """Which values share a block."""
    return {frozenset(block.values) for block in blocks_of(graph)}


def _apart(*values: str) -> set[frozenset[str]]:
    return {frozenset({value}) for value in values}


@given(st.integers(0, 10**6))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_sizes_are_rounded_up_to_the_alignment(size: int) -> None:
    assert aligned(size) % ALIGNMENT == 0
    assert max(1, size) <= aligned(size) < max(1, size) + ALIGNMENT


@pytest.mark.parametrize(("size", "expected"), [(0, 64), (1, 64), (64, 64), (65, 128), (128, 128)])
def test_aligned(size: int, expected: int) -> None:
    assert aligned(size) == expected


def test_times() -> None:
    """Inputs are written at 0, node i runs at i + 1, outputs are read after the last node."""
    b = Builder("x", "y")
    b.node("p", Permute((1, 0)), "x")  # 1
    b.node("q", Permute((1, 0)), "y")  # 2
    b.node("s", Concat(0), "p", "q")  # 3
    b.node("t", Permute((1, 0)), "s")  # 4
    assert blocks_of(b.give("t", "q")) == [
        Block(("x",), 64, 0, 1),
        Block(("y",), 64, 0, 2),
        Block(("p",), 64, 1, 3),
        Block(("q",), 64, 2, 5),
        Block(("s",), 128, 3, 4),
        Block(("t",), 128, 4, 5),
    ]


def test_an_input_that_nothing_reads_is_written_all_the_same() -> None:
    b = Builder("x", "unread")
    b.node("y", Permute((1, 0)), "x")
    assert Block(("unread",), 64, 0, 0) in blocks_of(b.give("y"))


def test_a_value_that_nothing_reads_lives_while_it_is_written() -> None:
    b = Builder()
    b.node("dead", Permute((1, 0)), "x")
    b.node("y", Permute((1, 0)), "x")
    assert Block(("dead",), 64, 1, 1) in blocks_of(b.give("y"))


def test_constants_have_no_block() -> None:
    b = Builder()
    weight = b.add_constant("w", torch.ones(4, 4))
    b.node("y", Dense(), "x", weight)
    assert _sharing(b.give("y")) == _apart("x", "y")


def test_a_chain_of_pointwise_ops_is_one_block() -> None:
    b = Builder()
    b.node("z", TANH, b.node("y", RELU, "x"))
    assert blocks_of(b.give("z")) == [Block(("x", "y", "z"), 64, 0, 3)]


def test_a_view_is_in_the_block_of_what_it_views() -> None:
    b = Builder()
    b.node("flat", Reshape((16,)), "x")
    b.node("y", Permute((1, 0)), b.node("wide", Reshape((2, 8)), "flat"))
    assert blocks_of(b.give("y")) == [Block(("x", "flat", "wide"), 64, 0, 3), Block(("y",), 64, 3, 4)]


def test_a_block_lives_as_long_as_its_longest_value() -> None:
    b = Builder()
    b.node("flat", Reshape((16,)), "x")
    b.node("p", Permute((1, 0)), "x")
    b.node("q", Permute((1, 0)), "p")
    assert Block(("x", "flat"), 64, 0, 4) in blocks_of(b.give("q", "flat"))


def test_a_sum_may_be_written_over_either_operand() -> None:
    b = Builder("x", "y")
    b.node("s", ADD, "x", "y")
    b.node("t", ADD, "s", "y")
    # x is read for the last time by the first sum, y by the second; s is in x's bytes then.
    assert _sharing(b.give("t")) == {frozenset({"x", "s", "t"}), frozenset({"y"})}
    b = Builder("x", "y")
    b.node("s", ADD, "x", "y")
    b.node("t", ADD, "s", "x")
    assert _sharing(b.give("t")) == {frozenset({"y", "s", "t"}), frozenset({"x"})}


def test_the_sum_of_a_value_with_itself_may_be_written_over_it() -> None:
    b = Builder()
    b.node("y", ADD, "x", "x")
    assert _sharing(b.give("y")) == {frozenset({"x", "y"})}


def test_not_over_an_operand_that_is_read_later() -> None:
    b = Builder()
    b.node("y", RELU, "x")
    b.node("z", Concat(0), "x", "y")
    assert _sharing(b.give("z")) == _apart("x", "y", "z")


def test_not_over_an_operand_that_is_returned() -> None:
    b = Builder()
    b.node("y", RELU, "x")
    assert _sharing(b.give("x", "y")) == _apart("x", "y")


def test_not_over_an_operand_whose_view_is_read_later() -> None:
    b = Builder()
    b.node("flat", Reshape((16,)), "x")
    b.node("y", RELU, "x")
    b.node("z", RELU, "flat")
    blocks = _sharing(b.give("y", "z"))
    assert frozenset({"y"}) in blocks
    assert frozenset({"x", "flat", "z"}) in blocks


def test_not_over_a_view_whose_source_is_read_later() -> None:
    b = Builder()
    flat = b.node("flat", Reshape((16,)), "x")
    b.node("y", RELU, flat)
    b.node("z", RELU, "x")
    assert frozenset({"y"}) in _sharing(b.give("y", "z"))


def test_over_a_view_that_is_read_for_the_last_time() -> None:
    b = Builder()
    flat = b.node("flat", Reshape((16,)), "x")
    b.node("y", RELU, flat)
    assert _sharing(b.give("y")) == {frozenset({"x", "flat", "y"})}


def test_not_over_a_broadcast_operand() -> None:
    b = Builder("x", "row")
    b.types["row"] = TensorType((1, 4))
    b.node("y", ADD, "row", "x")
    assert _sharing(b.give("y")) == {frozenset({"x", "y"}), frozenset({"row"})}


def test_not_over_a_value_that_the_same_op_reads_in_another_order() -> None:
    """x + transpose(x): the transpose is a value of its own, and the sum takes over one of the two."""
    b = Builder()
    b.node("y", ADD, "x", b.node("t", Permute((1, 0)), "x"))
    blocks = _sharing(b.give("y"))
    assert not any({"x", "t"} <= block for block in blocks)


def test_a_dense_layer_may_be_written_over_its_residual_only() -> None:
    b = Builder("x", "r")
    weight = b.add_constant("w", torch.ones(4, 4))
    b.node("y", Dense(has_residual=True), "x", weight, "r")
    assert _sharing(b.give("y")) == {frozenset({"x"}), frozenset({"r", "y"})}


def test_not_over_a_residual_that_is_also_multiplied() -> None:
    b = Builder()
    weight = b.add_constant("w", torch.ones(4, 4))
    b.node("y", Dense(has_residual=True), "x", weight, "x")
    assert _sharing(b.give("y")) == _apart("x", "y")


def test_not_over_a_residual_whose_view_is_multiplied() -> None:
    b = Builder(shape=(1, 4))
    weight = b.add_constant("w", torch.ones(4, 4))
    view = b.node("view", Reshape((1, 4)), "x")
    b.node("y", Dense(has_residual=True), view, weight, "x")
    assert _sharing(b.give("y")) == {frozenset({"x", "view"}), frozenset({"y"})}


@pytest.mark.parametrize("op", [Permute((1, 0)), Softmax(1), Slice(0, 0, 4), Concat(0)], ids=lambda op: op.name)
def test_not_where_the_op_does_not_allow_it(op: Op) -> None:
    b = Builder()
    b.node("y", op, "x")
    assert _sharing(b.give("y")) == _apart("x", "y")
