from __future__ import annotations

import pytest
import torch

from netopt.graph import Graph, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.drop_dead_code import drop_dead_code
from netopt.graph.passes.drop_identities import drop_identities
from netopt.ops import Arithmetic, Concat, Expand, Op, Permute, Pointwise, Reshape, Slice, TensorType

RELU = Pointwise("relu")
X = torch.arange(24.0).reshape(2, 3, 4) - 12


def _chain(*ops: Op) -> Graph:
    """The ops one after the other on x (2, 3, 4), each result named after its place: v0, v1 ..."""
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((2, 3, 4))}
    value = "x"
    for index, op in enumerate(ops):
        value = builder.add_node(op, (value,), f"v{index}", "")
    builder.outputs = (value,)
    return builder.finish()


def _dropped(graph: Graph) -> Graph:
    """The graph after the pass, which must be valid and give the same bits: no value is computed differently."""
    dropped = drop_identities(graph)
    verify(dropped)
    for before, after in zip(interpret(graph, [X]), interpret(dropped, [X]), strict=True):
        assert torch.equal(before, after)
    return dropped


@pytest.mark.parametrize(
    "identity",
    [Reshape((2, 3, 4)), Slice(1, 0, 3), Slice(2, 0, 4, 1), Permute((0, 1, 2)), Concat(1)],
    ids=lambda op: op.name,
)
def test_an_op_that_changes_nothing_goes(identity: Op) -> None:
    dropped = _dropped(_chain(RELU, identity, RELU))
    assert [node.op for node in dropped.nodes] == [RELU, RELU]
    assert dropped.nodes[1].inputs == ("v0",)
    assert str(drop_identities(dropped)) == str(dropped)


@pytest.mark.parametrize(
    "op",
    [Reshape((3, 2, 4)), Slice(1, 0, 2), Slice(1, 1, 3), Slice(2, 0, 4, 2), Permute((1, 0, 2)), RELU],
    ids=str,
)
def test_an_op_that_changes_something_stays(op: Op) -> None:
    graph = _chain(RELU, op, RELU)
    assert str(_dropped(graph)) == str(graph)


def test_an_op_that_keeps_the_shape_but_moves_elements_stays() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((3, 3))}
    builder.outputs = (builder.add_node(Permute((1, 0)), ("x",), "y", ""),)
    graph = builder.finish()
    assert str(drop_identities(graph)) == str(graph)


def test_a_concatenation_of_several_stays() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((2, 3, 4))}
    part = builder.add_node(Slice(0, 0, 1), ("x",), "part", "")
    builder.outputs = (builder.add_node(Concat(0), (part, part), "y", ""),)
    dropped = _dropped(builder.finish())
    assert [node.output for node in dropped.nodes] == ["part", "y"]


def test_an_identity_that_is_returned_gives_its_input() -> None:
    dropped = _dropped(_chain(Reshape((2, 3, 4))))
    assert dropped.nodes == ()
    assert dropped.outputs == ("x",)


def test_a_chain_of_identities_goes_at_once() -> None:
    dropped = _dropped(_chain(Slice(0, 0, 2), Permute((0, 1, 2)), Reshape((2, 3, 4)), Concat(0)))
    assert dropped.nodes == ()


def test_every_reader_and_output_reads_past_the_identity() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((2, 3, 4))}
    same = builder.add_node(Permute((0, 1, 2)), ("x",), "same", "")
    total = builder.add_node(Arithmetic("add"), (same, same), "y", "")
    builder.outputs = (total, same)
    dropped = _dropped(builder.finish())
    assert dropped.outputs == ("y", "x")
    assert dropped.nodes[0].inputs == ("x", "x")


def test_a_reshape_of_a_reshape_is_one() -> None:
    dropped = drop_dead_code(_dropped(_chain(Reshape((6, 4)), Reshape((24,)), Reshape((4, 6)))))
    assert [(node.op, node.inputs) for node in dropped.nodes] == [(Reshape((4, 6)), ("x",))]


def test_a_reshape_back_is_no_reshape() -> None:
    dropped = drop_dead_code(_dropped(_chain(RELU, Reshape((6, 4)), Reshape((2, 3, 4)), RELU)))
    assert [node.op for node in dropped.nodes] == [RELU, RELU]


def test_a_reshape_that_is_also_read_by_others_stays() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((2, 3, 4))}
    flat = builder.add_node(Reshape((24,)), ("x",), "flat", "")
    relu = builder.add_node(RELU, (flat,), "relu", "")
    square = builder.add_node(Reshape((6, 4)), (flat,), "square", "")
    builder.outputs = (relu, square)
    dropped = _dropped(builder.finish())
    assert {node.output: node.inputs for node in dropped.nodes} == {"flat": ("x",), "relu": ("flat",), "square": ("x",)}


@pytest.mark.parametrize("between", [Permute((0, 1)), Slice(0, 0, 6), Concat(1)], ids=lambda op: op.name)
def test_reshapes_are_merged_across_an_identity(between: Op) -> None:
    dropped = drop_dead_code(_dropped(_chain(Reshape((6, 4)), between, Reshape((24,)))))
    assert [(node.op, node.inputs) for node in dropped.nodes] == [(Reshape((24,)), ("x",))]


def test_arithmetic_broadcasts_by_itself() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x", "y")
    builder.types |= {"x": TensorType((4, 6)), "y": TensorType((4, 1))}
    wide = builder.add_node(Expand((4, 6)), ("y",), "wide", "")
    product = builder.add_node(Arithmetic("mul"), ("x", wide), "product", "")
    alone = builder.add_node(Arithmetic("add"), (wide, wide), "alone", "")  # nothing else makes this one wide
    builder.outputs = (product, alone)
    result = drop_identities(builder.finish())
    verify(result)
    assert [node.inputs for node in result.nodes[1:]] == [("x", "y"), (wide, wide)]
