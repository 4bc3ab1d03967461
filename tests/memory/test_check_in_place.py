"""Images among the channels of wider ones: plans against an oracle that knows the address of every element."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument
from netopt.graph import Graph, Node
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.choose_layouts import choose_layouts
from netopt.graph.passes.write_concat_in_place import write_concat_in_place
from netopt.memory import MemoryPlan, check_plan, plan_memory
from netopt.memory.check import Span
from netopt.memory.lifetimes import blocks_of
from netopt.memory.plan import first_fit
from netopt.ops import Arithmetic, Concat, Conv2d, Layout, Op, Pointwise, Pool2d, Slice, TensorType

POOL, RELU, ADD = Pool2d("max", (1, 1), (1, 1)), Pointwise("relu"), Arithmetic("add")
places = st.builds(Span, st.integers(0, 40), st.integers(1, 9), st.integers(9, 12), st.integers(1, 4))


def _bytes(place: Span) -> set[int]:
    starts = [place.start + number * place.pitch for number in range(place.count)]
    return {byte for start in starts for byte in range(start, start + place.run)}


@given(first=places, second=places, pitch=st.integers(9, 12))
@settings(derandomize=True, deadline=None, max_examples=400)
def test_overlaps(first: Span, second: Span, pitch: int) -> None:
    """No overlap is missed. None is seen between images that lie as deep in one another as all of their pixels."""
    common = _bytes(first) & _bytes(second)
    assert first.overlaps(second) or not common
    first, second = (dataclasses.replace(place, pitch=pitch, count=4) for place in (first, second))
    if abs(first.start - second.start) < pitch:
        assert first.overlaps(second) == second.overlaps(first) == bool(_bytes(first) & _bytes(second))


# --- by hand


def _two_parts() -> Graph:
    """y = concat(a, b): 5 and 3 channels of 1 x 2 pixels, between which c is computed."""
    part, whole = Layout(True, pitch=8), Layout(True)
    types = {
        "x": TensorType((1, 5, 1, 2), layout=whole),
        "z": TensorType((1, 3, 1, 2), layout=whole),
        "a": TensorType((1, 5, 1, 2), layout=part),
        "b": TensorType((1, 3, 1, 2), layout=part),
        "y": TensorType((1, 8, 1, 2), layout=whole),
        "v": TensorType((1, 2, 1, 2), layout=part),
        "w": TensorType((1, 2, 1, 2), layout=whole),
    }
    nodes = (
        Node(POOL, ("x",), "a", ""),
        Node(POOL, ("z",), "b", ""),
        Node(Concat(1, in_place=True), ("a", "b"), "y", ""),
        Node(Slice(1, 4, 6, in_place=True), ("y",), "v", ""),
        Node(POOL, ("v",), "w", ""),
    )
    return Graph(("x", "z"), ("y", "w"), nodes, types, {})


GOOD = {"x": 64, "z": 128, "a": 0, "b": 20, "y": 0, "v": 16, "w": 64}


def test_a_good_plan_passes() -> None:
    check_plan(_two_parts(), MemoryPlan(GOOD, 192, 192))
    plan = plan_memory(_two_parts())
    check_plan(_two_parts(), plan)
    assert {name: plan.offsets[name] - plan.offsets["y"] for name in ("a", "b", "v")} == {"a": 0, "b": 20, "v": 16}
    assert plan.arena_bytes == plan.lower_bound == 192


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ({"b": 16}, "memory plan: 'a': expected intact when read by 'y', found overwritten"),
        ({"b": 28}, "memory plan: 'a': expected intact when read by 'y', found overwritten"),
        ({"a": 0, "b": 20, "y": 64, "x": 0}, "memory plan: 'a': expected no overlap with its input 'x', found overlap"),
        ({"a": 4}, "memory plan: 'a': expected intact when read by 'y', found overwritten"),
        ({"b": 22}, "memory plan: place of 'b': expected a multiple of 4 from 0, up to 192, found 22 to 66"),
        ({"y": 4}, "memory plan: place of 'y': expected a multiple of 64 from 0, up to 192, found 4 to 68"),
        ({"y": 64}, "memory plan: 'y': expected the place of 'a'"),
        ({"v": 12}, "memory plan: 'v': expected the place of 'y' 16 bytes further on"),
        ({"w": 0}, "memory plan: 'y': expected intact when read by the caller, found overwritten"),
        ({"x": 0}, "memory plan: 'a': expected no overlap with its input 'x', found overlap"),
        ({"z": 0}, "memory plan: 'z': expected intact when read by 'b', found overwritten"),
    ],
)
def test_a_corrupted_plan_is_refused(moved: dict[str, int], message: str) -> None:
    offsets = {**GOOD, **moved}
    end = max(offset + _two_parts().types[name].span for name, offset in offsets.items())
    with pytest.raises(InvalidArgument) as caught:
        check_plan(_two_parts(), MemoryPlan(offsets, -(-end // 64) * 64, 0))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("b", Layout(True)),
        ("b", Layout(True, pitch=9)),
        ("v", Layout(True, pitch=7)),
        ("b", Layout(True, (0, 0, 1, 0), 8)),
        ("a", Layout()),
        ("y", Layout(True, (0, 0, 0, 1))),
        ("y", Layout()),
    ],
)
def test_layouts_that_do_not_fit_each_other_are_refused(name: str, layout: Layout) -> None:
    """A file may say that a value lies within another where their pixels do not."""
    graph = _two_parts()
    types = {**graph.types, name: dataclasses.replace(graph.types[name], layout=layout)}
    with pytest.raises(InvalidArgument, match="memory plan"):
        check_plan(dataclasses.replace(graph, types=types), MemoryPlan({**GOOD, "x": 128, "z": 192, "w": 256}, 320, 0))


def test_a_concatenation_in_place_along_another_axis_is_refused() -> None:
    layout = Layout(True)
    types = {name: TensorType((1, 1, 2, 2), layout=layout) for name in ("x", "a", "b")}
    types["y"] = TensorType((1, 1, 4, 2), layout=layout)
    nodes = (
        Node(POOL, ("x",), "a", ""),
        Node(POOL, ("x",), "b", ""),
        Node(Concat(2, in_place=True), ("a", "b"), "y", ""),
    )
    with pytest.raises(InvalidArgument, match="memory plan: 'y': expected the place of 'a'"):
        check_plan(Graph(("x",), ("y",), nodes, types, {}), MemoryPlan({"x": 128, "a": 0, "b": 64, "y": 0}, 192, 0))


# --- the oracle


class Arena:
    """Memory whose every number tells which value was written there last."""

    def __init__(self, graph: Graph, plan: MemoryPlan) -> None:
        self.graph, self.plan = graph, plan
        self.memory = torch.full((plan.arena_bytes // 4,), -1)
        self.expected: dict[str, torch.Tensor] = {}  # whose number is to be found at each element, zeros of halos too
        self.ids = itertools.count()

    def addresses(self, name: str) -> torch.Tensor:
        """The index in memory of each element, as (batch, channels, height, width) with the halo."""
        type_ = self.graph.types[name]
        start = torch.arange(self.plan.arena_bytes // 4 + 10_000)[self.plan.offsets[name] // 4 :]
        if not type_.layout.channels_last:
            return start[: type_.elements].reshape(type_.shape)
        batch, height, width, channels = type_.layout.physical(type_.shape)
        pitch = type_.layout.pitch or channels
        strides = (height * width * pitch, width * pitch, pitch, 1)
        return start.as_strided((batch, height, width, channels), strides, start.storage_offset()).permute(0, 3, 1, 2)

    def write(self, name: str) -> None:
        at = self.addresses(name)
        self.expected[name] = torch.full(at.shape, next(self.ids))
        self.memory[at] = self.expected[name]

    def intact(self, names: list[str]) -> bool:
        return all(torch.equal(self.memory[self.addresses(name)], self.expected[name]) for name in names)

    def view(self, node: Node) -> bool:
        """Take the output for what its inputs are, and tell whether it lies where they do."""
        assert isinstance(node.op, Concat | Slice)
        addresses = node.op.reference(*(self.addresses(name) for name in node.inputs))
        self.expected[node.output] = node.op.reference(*(self.expected[name] for name in node.inputs))
        return torch.equal(addresses, self.addresses(node.output))


def _keeps_every_value(graph: Graph, plan: MemoryPlan) -> bool:
    arena = Arena(graph, plan)
    for name in graph.inputs:
        arena.write(name)
    for node in graph.nodes:
        if not arena.intact(list(node.inputs)):
            return False
        if node.op.is_view(graph.node_types(node), graph.types[node.output]):
            if not arena.view(node):
                return False
            continue
        arena.write(node.output)
        in_place = node.op.in_place_operands(graph.node_types(node))
        at, layout = plan.offsets[node.output], graph.types[node.output].layout
        others = [
            name
            for index, name in enumerate(node.inputs)
            if index not in in_place or (plan.offsets[name], graph.types[name].layout) != (at, layout)
        ]
        if not arena.intact(others):
            return False
    return arena.intact(list(graph.outputs))


def random_images(choose: random.Random) -> Graph:
    """Images of few pixels, joined and cut at random, with paddings here and there."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((choose.randint(1, 2), choose.choice([3, 16]), 2, 2))}
    values = ["x", builder.add_node(POOL, ("x",), "first", "")]
    for number in range(choose.randint(2, 10)):
        x = choose.choice(values[-4:])
        channels = builder.types[x].shape[1]
        same = choose.choice([value for value in values if builder.types[value].shape == builder.types[x].shape])
        start = choose.randint(0, channels - 1)
        weight = builder.add_constant("w", torch.ones(4, channels, 3, 3))
        calls: list[tuple[Op, tuple[str, ...]]] = [
            (POOL, (x,)),
            (RELU, (x,)),
            (ADD, (x, same)),
            (Slice(1, start, choose.randint(start + 1, channels)), (x,)),
            (Conv2d((1, 1), (1, 1, 1, 1)), (x, weight)),
            *[(Concat(1), tuple(choose.choices(values, k=choose.randint(2, 3))))] * 4,
        ]
        op, inputs = choose.choice(calls)
        if sum(builder.types[name].shape[1] for name in inputs) < 60:
            values.append(builder.add_node(op, inputs, f"v{number}", ""))
    builder.outputs = (values[-1], *choose.sample(values, choose.randint(0, 2)))
    return write_concat_in_place(choose_layouts(builder.finish()))


def _without_constants(graph: Graph) -> Graph:
    """The oracle has no place for weights."""
    nodes = tuple(
        dataclasses.replace(node, op=POOL, inputs=node.inputs[:1]) if isinstance(node.op, Conv2d) else node
        for node in graph.nodes
    )
    types = {name: type_ for name, type_ in graph.types.items() if name not in graph.constants}
    return Graph(graph.inputs, graph.outputs, nodes, types, {})


def _corrupted(graph: Graph, plan: MemoryPlan, choose: random.Random) -> MemoryPlan:
    offsets = dict(plan.offsets)
    for name in choose.sample(sorted(offsets), min(len(offsets), choose.randint(0, 2))):
        if graph.types[name].layout.pitch:
            offsets[name] = max(0, offsets[name] + 4 * choose.randint(-8, 8))
        else:
            offsets[name] = 64 * choose.randint(0, plan.arena_bytes // 64)
    end = max(offset + graph.types[name].span for name, offset in offsets.items())
    return MemoryPlan(offsets, -(-end // 64) * 64, 0)


@given(seed=st.integers(0, 2**32))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_plans_are_right_and_what_passes_the_check_is(seed: int) -> None:
    choose = random.Random(seed)
    graph = _without_constants(random_images(choose))
    plan = plan_memory(graph)
    check_plan(graph, plan)
    assert _keeps_every_value(graph, plan)
    blocks = blocks_of(graph)
    simple = first_fit(blocks, sorted(range(len(blocks)), key=lambda i: (blocks[i].first, i)))
    assert plan.arena_bytes <= max(at + block.bytes for block, at in zip(blocks, simple, strict=True))
    for _ in range(4):
        corrupted = _corrupted(graph, plan, choose)
        try:
            check_plan(graph, corrupted)
        except InvalidArgument:
            continue
        assert _keeps_every_value(graph, corrupted)


def test_the_check_is_asked_both_kinds_of_questions() -> None:
    views, passed = 0, 0
    for seed in range(100):
        choose = random.Random(seed)
        graph = _without_constants(random_images(choose))
        views += any(node.op.is_view(graph.node_types(node), graph.types[node.output]) for node in graph.nodes)
        try:
            check_plan(graph, _corrupted(graph, plan_memory(graph), choose))
            passed += 1
        except InvalidArgument:
            pass
    assert views > 50
    assert 20 < passed < 80


def test_parts_and_whole_are_one_block() -> None:
    (block,) = [block for block in blocks_of(_two_parts()) if "y" in block.values]
    assert block.offsets(128) == {"y": 128, "a": 128, "b": 148, "v": 144}
    assert (block.bytes, block.first, block.last) == (64, 1, 6)
