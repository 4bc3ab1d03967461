"""Wrong plans are refused, and only wrong ones: by hand, and against an oracle that knows bytes instead of names."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument
from netopt.graph import Graph, Node
from netopt.memory import MemoryPlan, check_plan, plan_memory
from netopt.ops import Arithmetic, Concat, Dense, Op, Permute, Pointwise, Reshape, Slice, TensorType
from tests.memory.builder import Builder as SmallBuilder

RELU, ADD = Pointwise("relu"), Arithmetic("add")


class Builder(SmallBuilder):
    """A graph of x (4, 8), 128 bytes, unless told otherwise."""

    def __init__(self, *inputs: str, shape: tuple[int, ...] = (4, 8)) -> None:
        super().__init__(*inputs, shape=shape)


def _branches() -> Graph:
    """p = permute(x); flat = reshape(p); r = relu(flat); d = dense(x); y = concat(reshape(r), d)."""
    b = Builder()
    weight = b.add_constant("w", torch.ones(8, 8))
    p = b.node("p", Permute((1, 0)), "x")
    flat = b.node("flat", Reshape((32,)), p)
    r = b.node("r", RELU, flat)
    d = b.node("d", Dense(), "x", weight)
    b.node("y", Concat(0), b.node("back", Reshape((4, 8)), r), d)
    return b.give("y")


# x is read until d is written; p, flat, r and back share their bytes; y takes those of x, which is done.
GOOD = MemoryPlan({"x": 0, "p": 256, "flat": 256, "r": 256, "back": 256, "d": 384, "y": 0}, 512, 512)


def _moved(**moved: int) -> MemoryPlan:
    """The good plan with some values elsewhere, in an arena that is no larger than that needs, nor than 512 bytes."""
    offsets = {**GOOD.offsets, **moved}
    return MemoryPlan(offsets, min(512, 128 + max(offsets.values())), 0)


def test_a_good_plan_passes() -> None:
    check_plan(_branches(), GOOD)
    check_plan(_branches(), plan_memory(_branches()))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (_moved(d=256), "memory plan: 'r': expected intact when read by 'back', found overwritten"),
        (_moved(d=192), "memory plan: 'r': expected intact when read by 'back', found overwritten"),
        (_moved(d=320), "memory plan: 'r': expected intact when read by 'back', found overwritten"),
        (_moved(p=64, flat=64, r=64, back=64), "memory plan: 'p': expected no overlap with its input 'x'"),
        (_moved(x=256), "memory plan: 'p': expected no overlap with its input 'x', found overlap"),
        (_moved(r=64, back=64), "memory plan: 'x': expected intact when read by 'd', found overwritten"),
        (_moved(r=192, back=192), "memory plan: 'r': expected no overlap with its input 'flat', found overlap"),
        (_moved(y=256), "memory plan: 'y': expected no overlap with its input 'back', found overlap"),
        (_moved(y=192), "memory plan: 'y': expected no overlap with its input 'back', found overlap"),
        (_moved(flat=384), "memory plan: 'flat': expected the place of 'p'"),
        (_moved(back=384), "memory plan: 'back': expected the place of 'r'"),
        (_moved(back=192), "memory plan: 'back': expected the place of 'r'"),
        (_moved(d=416), "memory plan: place of 'd': expected a multiple of 64 from 0, up to 512, found 416 to 544"),
        (_moved(x=4), "memory plan: place of 'x': expected a multiple of 64 from 0, up to 512, found 4 to 132"),
        (_moved(d=448), "memory plan: place of 'd': expected a multiple of 64 from 0, up to 512, found 448 to 576"),
        (_moved(d=-64), "memory plan: place of 'd': expected a multiple of 64 from 0, up to 384, found -64 to 64"),
        (_moved(z=0), "memory plan: expected offsets for ['back', 'd', 'flat', 'p', 'r', 'x', 'y'], found ['back', "),
        (_moved(w=0), "memory plan: expected offsets for ['back', 'd', 'flat', 'p', 'r', 'x', 'y'], found ['back', "),
        (dataclasses.replace(GOOD, arena_bytes=511), "memory plan: place of 'd': expected a multiple of 64 from 0, up"),
        (dataclasses.replace(GOOD, arena_bytes=0), "memory plan: place of 'x': expected a multiple of 64 from 0, up"),
    ],
)
def test_a_corrupted_plan_is_refused(plan: MemoryPlan, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_plan(_branches(), plan)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", GOOD.offsets)
def test_a_value_without_a_place_is_refused(name: str) -> None:
    offsets = {key: offset for key, offset in GOOD.offsets.items() if key != name}
    with pytest.raises(InvalidArgument, match=f"memory plan: place of '{name}'"):
        check_plan(_branches(), dataclasses.replace(GOOD, offsets=offsets))


@pytest.mark.parametrize("arena_bytes", [640, 2**47])
def test_an_arena_larger_than_what_is_used_is_refused(arena_bytes: int) -> None:
    """The size that is told is the size that is used, and a file must not ask for more memory than it needs."""
    with pytest.raises(InvalidArgument, match="memory plan"):
        check_plan(_branches(), dataclasses.replace(GOOD, arena_bytes=arena_bytes))


def test_an_arena_below_the_lower_bound_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="memory plan"):
        check_plan(_branches(), dataclasses.replace(GOOD, lower_bound=513))


def test_a_result_that_is_overwritten_is_refused() -> None:
    b = Builder("x", "unread")
    b.node("y", Permute((1, 0)), "x")
    graph = b.give("y", "x")
    check_plan(graph, MemoryPlan({"x": 0, "unread": 128, "y": 128}, 256, 256))
    b.node("z", Permute((1, 0)), "y")
    graph = b.give("y", "z", "x")
    with pytest.raises(InvalidArgument, match="memory plan: 'x': expected intact when read by the caller, found over"):
        check_plan(graph, MemoryPlan({"x": 0, "unread": 128, "y": 128, "z": 0}, 256, 256))


def test_inputs_over_each_other_are_refused() -> None:
    b = Builder("a", "b")
    b.node("y", Concat(0), "a", "b")
    graph = b.give("y")
    with pytest.raises(InvalidArgument, match="memory plan: 'a': expected intact when read by 'y'"):
        check_plan(graph, MemoryPlan({"a": 0, "b": 64, "y": 192}, 448, 448))


def test_a_view_of_a_constant_is_refused() -> None:
    """It has no bytes in the arena that could be viewed; fold_constants leaves no such view."""
    b = Builder()
    constant = b.add_constant("c", torch.ones(32))
    b.node("v", Reshape((4, 8)), constant)
    b.node("y", ADD, "x", "v")
    with pytest.raises(InvalidArgument, match="memory plan: 'v': expected the place of 'c'"):
        check_plan(b.give("y"), MemoryPlan({"x": 0, "v": 128, "y": 0}, 256, 256))


# --- in place


@pytest.mark.parametrize(
    ("op", "inputs", "over", "allowed"),
    [
        (RELU, ("x",), "x", True),
        (ADD, ("x", "r"), "x", True),
        (ADD, ("x", "r"), "r", True),
        (ADD, ("x", "x"), "x", True),
        (ADD, ("x", "part"), "x", True),
        (ADD, ("x", "part"), "part", False),
        (Dense(), ("x", "w"), "x", False),
        (Dense(has_residual=True), ("x", "w", "r"), "r", True),
        (Dense(has_residual=True), ("x", "w", "r"), "x", False),
        (Dense(has_residual=True), ("x", "w", "x"), "x", False),
        (Permute((0, 1)), ("x",), "x", False),
        (Slice(0, 0, 4), ("x",), "x", False),
        (Concat(0), ("x",), "x", False),
    ],
)
def test_writing_over_an_input_of_the_same_node(op: Op, inputs: tuple[str, ...], over: str, allowed: bool) -> None:
    b = Builder("x", "r", "part")
    b.types["part"] = TensorType((1, 8))
    b.add_constant("w", torch.ones(8, 8))
    b.node("y", op, *inputs)
    graph = b.give("y")
    places = {"x": 0, "r": 128, "part": 256}
    plan = MemoryPlan({**places, "y": places[over]}, max(320, places[over] + 128), 0)
    if allowed:
        check_plan(graph, plan)
    else:
        with pytest.raises(InvalidArgument, match=f"memory plan: 'y': expected no overlap with its input '{over}'"):
            check_plan(graph, plan)


def test_a_partial_overlap_is_never_in_place() -> None:
    b = Builder()
    b.node("y", RELU, "x")
    with pytest.raises(InvalidArgument, match="memory plan: 'y': expected no overlap with its input 'x'"):
        check_plan(b.give("y"), MemoryPlan({"x": 0, "y": 64}, 192, 192))


# --- the oracle


class Arena:
    """Memory whose every byte tells whose it is."""

    def __init__(self, graph: Graph, plan: MemoryPlan) -> None:
        self.graph, self.offsets = graph, plan.offsets
        self.bytes: list[str | None] = [None] * plan.arena_bytes
        self.owner: dict[str, str] = {}  # a view's bytes are those of the value that it views

    def _span(self, name: str) -> range:
        return range(self.offsets[name], self.offsets[name] + self.graph.types[name].bytes)

    def write(self, name: str) -> None:
        self.owner[name] = name
        for byte in self._span(name):
            self.bytes[byte] = name

    def intact(self, names: Iterable[str]) -> bool:
        computed = [name for name in names if name not in self.graph.constants]
        return all(self.bytes[byte] == self.owner[name] for name in computed for byte in self._span(name))


def _keeps_every_value(graph: Graph, plan: MemoryPlan) -> bool:
    """Run the graph on bytes, and look at each byte that is read.

    An op that may not work in place is taken at its worst: it writes all of its output before it reads its inputs.
    """
    arena = Arena(graph, plan)
    for name in graph.inputs:
        arena.write(name)
    for node in graph.nodes:
        if not arena.intact(node.inputs):
            return False
        if node.op.is_view(graph.node_types(node), graph.types[node.output]):
            if plan.offsets.get(node.inputs[0]) != plan.offsets[node.output]:
                return False
            arena.owner[node.output] = arena.owner[node.inputs[0]]
            continue
        arena.write(node.output)
        if not arena.intact(_read_last(graph, node, plan.offsets)):
            return False
    return arena.intact(graph.outputs)


def _read_last(graph: Graph, node: Node, offsets: Mapping[str, int]) -> list[str]:
    """The inputs that may be read when the output is written already: all but those that it takes the place of."""
    in_place = node.op.in_place_operands(graph.node_types(node))
    return [
        name
        for index, name in enumerate(node.inputs)
        if index not in in_place or offsets.get(name) != offsets[node.output]
    ]


def _random_graph(choose: random.Random) -> Graph:
    """Up to 10 nodes over values of 24 to 288 bytes, so that some do not fill their last line of 64."""
    b = Builder(*[f"x{i}" for i in range(choose.randint(1, 3))], shape=(choose.randint(1, 4), 6))
    values = list(b.inputs)
    for index in range(choose.randint(1, 10)):
        x = choose.choice(values[-4:])
        shape = b.types[x].shape
        same = choose.choice([value for value in values if b.types[value].shape == shape])
        weight = b.add_constant("w", torch.ones(shape[-1], shape[-1]))
        calls: list[tuple[Op, list[str]]] = [
            (RELU, [x]),
            (ADD, [x, same]),
            (ADD, [b.add_constant("row", torch.ones(shape[-1])), x]),
            (Dense(), [x, weight]),
            (Dense(has_residual=True), [x, weight, same]),
            (Reshape((b.types[x].elements,)), [x]),
            (Permute(tuple(reversed(range(len(shape))))), [x]),
            (Slice(0, 0, max(1, shape[0] // 2)), [x]),
        ]
        if b.types[x].bytes <= 144:
            calls.append((Concat(0), [x, same]))
        op, inputs = choose.choice(calls)
        values.append(b.node(f"v{index}", op, *inputs))
    return b.give(values[-1], *choose.sample(values, choose.randint(0, 2)))


def _corrupted(plan: MemoryPlan, graph: Graph, choose: random.Random) -> MemoryPlan:
    """The plan with a few values at other offsets; views go along with what they view, or not."""
    offsets = dict(plan.offsets)
    for name in choose.sample(sorted(offsets), min(len(offsets), choose.randint(0, 2))):
        offsets[name] = 64 * choose.randint(0, plan.arena_bytes // 64)
    if choose.random() < 0.8:
        for node in graph.nodes:
            if node.op.is_view(graph.node_types(node), graph.types[node.output]):
                offsets[node.output] = offsets[node.inputs[0]]
    end = max(offset + graph.types[name].bytes for name, offset in offsets.items())
    return MemoryPlan(offsets, -(-end // 64) * 64, 0)


def _accepted(graph: Graph, plan: MemoryPlan) -> bool:
    try:
        check_plan(graph, plan)
    except InvalidArgument:
        return False
    return True


@given(seed=st.integers(0, 2**32))
@settings(derandomize=True, deadline=None, max_examples=400)
def test_the_check_agrees_with_the_oracle(seed: int) -> None:
    choose = random.Random(seed)
    graph = _random_graph(choose)
    plan = _corrupted(plan_memory(graph), graph, choose)
    assert _accepted(graph, plan) == _keeps_every_value(graph, plan)


def test_the_oracle_is_asked_both_kinds_of_questions() -> None:
    """Of the plans above, neither nearly all are right nor nearly all wrong."""
    answers = []
    for seed in range(200):
        choose = random.Random(seed)
        graph = _random_graph(choose)
        plan = _corrupted(plan_memory(graph), graph, choose)
        answers.append(_keeps_every_value(graph, plan))
    assert 40 < sum(answers) < 160
