from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from netopt.graph import Graph
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.memory import MemoryPlan, check_plan, plan_memory
from netopt.memory.lifetimes import Block, blocks_of
from netopt.memory.plan import first_fit, lower_bound, place
from netopt.ops import Arithmetic, Concat, Dense, Op, Permute, Pointwise, Reshape, Slice
from tests.memory.builder import Builder as SmallBuilder
from tests.pipelines import run_passes

RELU, TANH, SIGMOID, ADD = Pointwise("relu"), Pointwise("tanh"), Pointwise("sigmoid"), Arithmetic("add")


# --- random blocks


@st.composite
def _blocks(draw: st.DrawFn) -> list[Block]:
    blocks = []
    for index in range(draw(st.integers(0, 14))):
        first = draw(st.integers(0, 12))
        last = first + draw(st.integers(0, 8))
        blocks.append(Block((f"v{index}",), 64 * draw(st.integers(1, 20)), first, last))
    return blocks


def _end(blocks: list[Block], offsets: list[int]) -> int:
    return max((offset + block.bytes for block, offset in zip(blocks, offsets, strict=True)), default=0)


def _assert_placed(blocks: list[Block], offsets: list[int]) -> None:
    assert len(offsets) == len(blocks)
    assert all(offset >= 0 and offset % 64 == 0 for offset in offsets)
    for time in range(25):
        alive = sorted(
            (offset, offset + block.bytes)
            for block, offset in zip(blocks, offsets, strict=True)
            if block.first <= time <= block.last
        )
        for (_, end), (start, _) in itertools.pairwise(alive):
            assert end <= start, f"blocks overlap at time {time}"


@given(blocks=_blocks())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_blocks_that_live_at_the_same_time_do_not_overlap(blocks: list[Block]) -> None:
    _assert_placed(blocks, place(blocks))


@given(blocks=_blocks(), seed=st.integers(0, 99))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_first_fit_is_right_in_any_order(blocks: list[Block], seed: int) -> None:
    order = random.Random(seed).sample(range(len(blocks)), len(blocks))
    offsets = first_fit(blocks, order)
    _assert_placed(blocks, offsets)
    # First fit: no block could be moved down by one line of 64 bytes when it was placed.
    for position, index in enumerate(order):
        block, offset = blocks[index], offsets[index]
        rivals = [(offsets[i], blocks[i]) for i in order[:position]]
        touching = [r for o, r in rivals if o < offset and offset - 64 < o + r.bytes]
        alive = [r for r in touching if r.first <= block.last and block.first <= r.last]
        assert offset == 0 or alive, "it hangs in the air"


@given(blocks=_blocks())
@settings(derandomize=True, deadline=None, max_examples=100)
def test_the_arena_is_between_the_bound_and_first_fit_in_the_order_of_time(blocks: list[Block]) -> None:
    end = _end(blocks, place(blocks))
    simple = first_fit(blocks, sorted(range(len(blocks)), key=lambda i: (blocks[i].first, i)))
    assert lower_bound(blocks) <= end <= _end(blocks, simple)


@given(blocks=_blocks())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_the_lower_bound_is_the_most_that_lives_at_once(blocks: list[Block]) -> None:
    assert lower_bound(blocks) == max(sum(b.bytes for b in blocks if b.first <= t <= b.last) for t in range(25))


@given(blocks=_blocks())
@settings(derandomize=True, deadline=None, max_examples=30)
def test_the_same_blocks_are_placed_the_same_way(blocks: list[Block]) -> None:
    assert place(blocks) == place(list(blocks))


def test_no_blocks_no_bytes() -> None:
    assert place([]) == []
    assert lower_bound([]) == 0


def test_blocks_that_follow_each_other_share_bytes() -> None:
    blocks = [Block((str(i),), 64 * (i + 1), 2 * i, 2 * i + 1) for i in range(5)]
    assert place(blocks) == [0] * 5


def test_a_hole_is_filled_only_where_the_block_fits() -> None:
    blocks = [Block(("a",), 128, 0, 1), Block(("b",), 64, 0, 9), Block(("c",), 64, 2, 9), Block(("d",), 128, 2, 9)]
    assert first_fit(blocks, [0, 1, 2, 3]) == [0, 128, 0, 192]
    assert first_fit(blocks, [0, 1, 3, 2]) == [0, 128, 192, 0]


def test_the_search_beats_the_order_of_time() -> None:
    """In the order of time the long block c lands on top of the hole that a leaves."""
    blocks = [Block(("a",), 64, 0, 1), Block(("b",), 64, 0, 2), Block(("c",), 128, 2, 3), Block(("d",), 64, 3, 4)]
    simple = first_fit(blocks, range(4))
    assert _end(blocks, simple) == 256
    assert _end(blocks, place(blocks)) == lower_bound(blocks) == 192


def test_shuffles_beat_all_the_orders() -> None:
    """By time, by size, by size x lifetime and by lifetime, a block is left over that a hole is too small for."""
    sizes = {"a": (320, 2, 3), "b": (320, 3, 4), "c": (192, 4, 4), "d": (256, 4, 5)}
    blocks = [Block((name,), *block) for name, block in sizes.items()]
    keys: list[Callable[[Block], int]] = [
        lambda block: block.first,
        lambda block: -block.bytes,
        lambda block: -block.bytes * (block.last - block.first + 1),
        lambda block: block.first - block.last,
    ]
    for key in keys:
        assert _end(blocks, first_fit(blocks, sorted(range(4), key=lambda i, key=key: key(blocks[i])))) >= 832
    assert _end(blocks, place(blocks)) == lower_bound(blocks) == 768


# --- networks, built by hand


class Builder(SmallBuilder):
    """A graph of x (8, 8), 256 bytes, unless told otherwise, that is planned."""

    def plan(self, *outputs: str) -> MemoryPlan:
        return _checked(self.give(*outputs))


def _checked(graph: Graph) -> MemoryPlan:
    """The plan of the graph, after all that must hold for any."""
    plan = plan_memory(graph)
    check_plan(graph, plan)
    assert set(plan.offsets) == set(graph.types) - set(graph.constants)
    assert all(offset % 64 == 0 for offset in plan.offsets.values())
    assert plan.arena_bytes >= plan.lower_bound
    used = max(offset + graph.types[name].bytes for name, offset in plan.offsets.items())
    assert used <= plan.arena_bytes < used + 64, "the size that is told is the size that is used"
    assert plan.lower_bound == lower_bound(blocks_of(graph))
    return plan


def test_a_chain_of_pointwise_ops_needs_the_bytes_of_one_value() -> None:
    b = Builder()
    b.node("s", SIGMOID, b.node("t", TANH, b.node("r", RELU, "x")))
    plan = b.plan("s")
    assert plan.arena_bytes == plan.lower_bound == 256
    assert set(plan.offsets.values()) == {0}


def test_sizes_are_rounded_up_to_lines_of_64_bytes() -> None:
    b = Builder("x", "y", shape=(5,))
    b.node("z", Concat(0), "x", "y")
    plan = b.plan("z")
    assert plan.arena_bytes == 3 * 64


def test_a_reshape_shares_the_bytes() -> None:
    b = Builder()
    b.node("flat", Reshape((64,)), "x")
    b.node("wide", Reshape((2, 32)), "flat")
    plan = b.plan("wide")
    assert plan.arena_bytes == 256
    assert len(set(plan.offsets.values())) == 1


def test_an_operand_that_is_read_later_is_not_overwritten() -> None:
    b = Builder()
    b.node("y", RELU, "x")
    b.node("z", TANH, "y")
    b.node("s", ADD, "z", "x")
    plan = b.plan("s")
    assert plan.arena_bytes == 512
    assert plan.offsets["y"] == plan.offsets["z"] != plan.offsets["x"]


def test_the_sum_with_the_transpose_is_not_over_the_transposed() -> None:
    b = Builder()
    b.node("y", ADD, "x", b.node("t", Permute((1, 0)), "x"))
    plan = b.plan("y")
    assert plan.offsets["x"] != plan.offsets["t"]
    assert plan.arena_bytes == 512
    assert plan.offsets["y"] in (plan.offsets["x"], plan.offsets["t"])


def test_a_residual_is_kept_while_the_branch_is_computed() -> None:
    b = Builder()
    weight = b.add_constant("w", torch.ones(8, 8))
    d = b.node("d", Dense(activation=RELU), "x", weight)
    b.node("y", Dense(has_residual=True), d, weight, "x")
    plan = b.plan("y")
    assert plan.arena_bytes == 512
    assert plan.offsets["x"] != plan.offsets["d"]
    assert plan.offsets["y"] == plan.offsets["x"], "the last layer may write over what it adds"


def test_a_dense_layer_does_not_write_over_its_input() -> None:
    b = Builder()
    weight = b.add_constant("w", torch.ones(8, 8))
    b.node("y", Dense(has_residual=True), "x", weight, "x")
    plan = b.plan("y")
    assert plan.offsets["x"] != plan.offsets["y"]


def test_a_chain_of_dense_layers_needs_the_two_largest_neighbours() -> None:
    b = Builder(shape=(1, 16))
    value = "x"
    for index, (before, after) in enumerate([(16, 160), (160, 80), (80, 48), (48, 16)]):
        value = b.node(f"d{index}", Dense(), value, b.add_constant("w", torch.ones(after, before)))
    plan = b.plan(value)
    assert plan.arena_bytes == plan.lower_bound == 4 * (160 + 80)


def test_results_are_all_there_at_the_end() -> None:
    b = Builder()
    y, z = b.node("y", RELU, "x"), b.node("z", TANH, "x")
    plan = b.plan(z, y, "x")
    assert plan.arena_bytes == 3 * 256


def test_a_graph_that_returns_its_input() -> None:
    plan = Builder().plan("x", "x")
    assert plan == MemoryPlan({"x": 0}, 256, 256)


def test_a_graph_of_constants_needs_no_arena() -> None:
    builder = GraphBuilder()
    builder.outputs = (builder.add_constant("c", torch.ones(3)),)
    graph = builder.finish()
    plan = plan_memory(graph)
    check_plan(graph, plan)
    assert plan == MemoryPlan({}, 0, 0)


# --- networks, at random


def _random_graph(seed: int) -> Graph:
    """Up to 15 nodes of every kind that matters to memory: views, in place or not, with one or two operands."""
    choose = random.Random(seed)
    builder = Builder(*[f"x{i}" for i in range(choose.randint(1, 3))], shape=(choose.randint(1, 9), 6))
    values = list(builder.inputs)
    for index in range(choose.randint(1, 15)):
        x = choose.choice(values[-4:])
        shape = builder.types[x].shape
        same = [value for value in values if builder.types[value].shape == shape]
        weight = builder.add_constant("w", torch.ones(shape[-1], shape[-1]))
        row = builder.add_constant("row", torch.ones(shape[-1]))
        calls: list[tuple[Op, list[str]]] = [
            (RELU, [x]),
            (ADD, [x, choose.choice(same)]),
            (ADD, [row, x]),
            (Dense(), [x, weight]),
            (Dense(has_residual=True), [x, weight, choose.choice(same)]),
            (Reshape((builder.types[x].elements,)), [x]),
            (Reshape(shape[::-1]), [x]),
            (Permute(tuple(reversed(range(len(shape))))), [x]),
            (Slice(0, 0, max(1, shape[0] // 2)), [x]),
            (Concat(len(shape) - 1), [x, choose.choice(same)]),
        ]
        op, inputs = choose.choice(calls)
        values.append(builder.node(f"v{index}", op, *inputs))
    builder.outputs = (values[-1], *choose.sample(values, choose.randint(0, 2)))
    return builder.finish()


@given(seed=st.integers(0, 2**32))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_plans_of_random_graphs_pass_the_check(seed: int) -> None:
    graph = _random_graph(seed)
    plan = _checked(graph)
    blocks = blocks_of(graph)
    simple = first_fit(blocks, sorted(range(len(blocks)), key=lambda i: (blocks[i].first, i)))
    assert plan.arena_bytes <= _end(blocks, simple)
    assert plan == plan_memory(graph), "the same graph has the same plan"


class Network(nn.Module):
    """A network drawn at random: dense layers, norms, residuals, concatenations, in-place activations."""

    def __init__(self, seed: int, width: int) -> None:
        super().__init__()
        choose = random.Random(seed)
        self.steps: list[str] = []
        self.layers, self.norms = nn.ModuleList(), nn.ModuleList()
        for _ in range(6):
            step = choose.choice(["dense", "norm", "residual", "concat", "swap", "half"])
            after = width if step in ("residual", "concat") else choose.choice([4, 6, 16])
            self.steps.append(step)
            self.layers.append(nn.Linear(width, after, bias=choose.random() < 0.5))
            self.norms.append(nn.BatchNorm1d(after))
            width = {"concat": 2 * width, "swap": width, "half": width // 2}.get(step, after)

    def forward(self, x: torch.Tensor) -> Any:
        kept = []
        for step, layer, norm in zip(self.steps, self.layers, self.norms, strict=True):
            match step:
                case "dense":
                    x = F.relu(layer(x), inplace=True)
                case "norm":
                    x = norm(layer(x)).tanh()
                case "residual":
                    x = x + F.gelu(layer(x))
                case "concat":
                    x = torch.cat([x, layer(x).sigmoid()], 1)
                case "swap":
                    x = x.unsqueeze(1).transpose(0, 1).squeeze(0) * 2
                    kept.append(x)
                case _:
                    x = x[:, : x.shape[1] // 2]
        return x, kept


@pytest.mark.parametrize("seed", range(10))
def test_plans_of_captured_networks_pass_the_check(seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Network(seed, 24), torch.randn(3, 24)
    captured, _ = capture(model, x)
    _checked(captured)
    _checked(run_passes(captured))
