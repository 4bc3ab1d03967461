"""Where chains change their sign, against all integers, and against the neighbours of floats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.graph import Graph, Node
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.monotone import (
    along_channels,
    change_of_float,
    change_of_integer,
    is_monotone,
    operand,
    run,
)
from netopt.ops import Arithmetic, BatchNorm, Op, Pointwise, Softmax, TensorType

CHANNELS = 5
K = 40  # the most that an integer can be
quick = settings(max_examples=60, derandomize=True, deadline=None)


class Chain:
    """Ops on x (2, 5) or (2, 5, 3, 3), one after the other, with constants of one number a channel."""

    def __init__(self, rank: int = 2) -> None:
        self.builder, self.rank = GraphBuilder(), rank
        self.builder.inputs, self.builder.types = ("x",), {"x": TensorType((2, CHANNELS, 3, 3)[:rank])}
        self.last = "x"

    def add(self, op: Op, *constants: torch.Tensor, first: bool = True) -> Chain:
        """`constants` are the op's other inputs, or with `first=False` stand before x."""
        along = (-1, *[1] * (self.rank - 2)) if isinstance(op, Arithmetic) else (-1,)
        names = tuple(self.builder.add_constant("c", constant.reshape(along)) for constant in constants)
        inputs = (self.last, *names) if first else (*names, self.last)
        self.last = self.builder.add_node(op, inputs, "y", "")
        return self

    def graph(self) -> Graph:
        self.builder.outputs = (self.last,)
        return self.builder.finish()


numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 0.1, -0.3, 3.0, 1e-3, 7.25, 1e4])
vectors = st.lists(numbers, min_size=CHANNELS, max_size=CHANNELS).map(torch.tensor)
positive = st.lists(st.sampled_from([1e-3, 0.5, 1.0, 4.0]), min_size=CHANNELS, max_size=CHANNELS).map(torch.tensor)
activations = st.sampled_from(
    [
        Pointwise("relu"),
        Pointwise("hardtanh", (-1.0, 1.0)),
        Pointwise("hardtanh", (-3.0, -1.0)),
        Pointwise("leaky_relu", (0.25,)),
        Pointwise("hardsigmoid"),
    ]
)


@st.composite
def chains(draw: st.DrawFn, *, scales: bool = True) -> Chain:
    """One to four steps: arithmetic on either side, batch normalization, activations and slopes."""
    chain = Chain(draw(st.sampled_from([2, 4])))
    for kind in draw(st.lists(st.sampled_from(["arithmetic", "norm", "activation", "slope"]), min_size=1, max_size=4)):
        match kind:
            case "arithmetic":
                function = draw(st.sampled_from(["add", "sub", "mul"] if scales else ["add", "sub"]))
                chain.add(Arithmetic(function), draw(vectors), first=draw(st.booleans()))
            case "norm" if scales:
                chain.add(BatchNorm(0.25), draw(vectors), draw(vectors), draw(vectors), draw(positive))
            case "slope":
                chain.add(Arithmetic("prelu"), draw(vectors).abs())
            case _:
                chain.add(draw(activations))
    return chain


def is_positive(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    """Whether the chain is not negative, for x (n, channels)."""
    return run(graph, graph.nodes, "x", x) >= 0


@quick
@given(chain=chains())
def test_a_change_among_integers_is_that_of_all_of_them(chain: Chain) -> None:
    graph = chain.graph()
    change = change_of_integer(graph, graph.nodes, "x", CHANNELS, K)
    assert change.at.dtype == torch.int32
    x = torch.arange(-K, K + 1)[:, None].expand(-1, CHANNELS)
    found = change.direction * x >= change.direction * change.at
    assert torch.equal(found, is_positive(graph, x.float()))
    assert bool((change.direction.abs() == 1).all())


@quick
@given(chain=chains())
def test_a_change_among_floats_is_where_neighbours_differ(chain: Chain) -> None:
    """At the threshold, next to it, and at some numbers of any size."""
    graph = chain.graph()
    change = change_of_float(graph, graph.nodes, "x", CHANNELS)
    assert change.at.dtype == change.direction.dtype == torch.float32
    infinity = torch.tensor(math.inf)
    near = torch.where(change.at.isinf(), 0.0, change.at)
    x = torch.stack([near, torch.nextafter(near, infinity), torch.nextafter(near, -infinity)])
    sizes = torch.tensor([0.0, 1e-45, 1e-30, 1e-3, 0.7, 3.0, 1e4, 1e30])[:, None].expand(-1, CHANNELS)
    x = torch.cat([x, sizes, -sizes])
    found = change.direction * x >= change.direction * change.at
    assert torch.equal(found, is_positive(graph, x))


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_a_scale_of_zero_is_always_or_never(shift: float) -> None:
    """Also after a scale that takes the largest numbers beyond all floats."""
    scale = torch.tensor([0.0, -0.0, 0.0, 1.0, -1.0])
    chain = Chain().add(Arithmetic("mul"), torch.full((CHANNELS,), 4.0)).add(Arithmetic("mul"), scale)
    graph = chain.add(Arithmetic("add"), torch.full((CHANNELS,), shift)).graph()
    change = change_of_float(graph, graph.nodes, "x", CHANNELS)
    always = -math.inf if shift >= 0 else math.inf
    # Denormal numbers are zero: the change is at any of them.
    assert change.at.tolist() == pytest.approx([*[always] * 3, -shift / 4, shift / 4], rel=0.0, abs=2.0**-126)
    assert change.direction.tolist() == [1, 1, 1, 1, -1]
    whole = change_of_integer(graph, graph.nodes, "x", CHANNELS, K)
    assert whole.at[:3].tolist() == [-K - 1 if shift >= 0 else K + 1] * 3


def test_a_threshold_is_the_number_itself_and_not_one_beside_it() -> None:
    """x + 0.1 >= 0 from -0.1 on, which is no sum of bits that arithmetic in decimals would find."""
    graph = Chain().add(Arithmetic("sub"), torch.full((CHANNELS,), 0.1)).graph()
    assert change_of_float(graph, graph.nodes, "x", CHANNELS).at.tolist() == [torch.tensor(0.1).item()] * CHANNELS


C = torch.ones(CHANNELS)
SLOPE = torch.tensor([0.0, 0.1, 1.0, 2.0, -0.1])


@pytest.mark.parametrize(
    ("op", "constants", "first", "expected"),
    [
        (Arithmetic("add"), [C], True, True),
        (Arithmetic("sub"), [C], False, True),
        (Arithmetic("mul"), [SLOPE], False, True),
        (Arithmetic("div"), [C], True, True),
        (Arithmetic("div"), [C], False, False),
        (Arithmetic("div"), [SLOPE], True, False),
        (Arithmetic("maximum"), [C], True, False),
        (Arithmetic("prelu"), [SLOPE.abs()], True, True),
        (Arithmetic("prelu"), [SLOPE], True, False),
        (Arithmetic("add"), [C / 0], True, False),
        (BatchNorm(1e-5), [SLOPE, C, C, C], True, True),
        (Pointwise("relu"), [], True, True),
        (Pointwise("hardtanh", (-2.0, -1.0)), [], True, True),
        (Pointwise("leaky_relu", (0.5,)), [], True, True),
        (Pointwise("leaky_relu", (-0.5,)), [], True, False),
        (Pointwise("silu"), [], True, False),
        (Pointwise("gelu"), [], True, False),
        (Pointwise("abs"), [], True, False),
        (Softmax(1), [], True, False),
    ],
)
@pytest.mark.parametrize("rank", [2, 4])
def test_what_is_monotone(op: Op, constants: list[torch.Tensor], first: bool, expected: bool, rank: int) -> None:
    graph = Chain(rank).add(op, *constants, first=first).graph()
    assert is_monotone(graph, graph.nodes[0], "x", CHANNELS) == expected


def test_what_is_not_of_one_value_alone_is_not_monotone() -> None:
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x", "r"), {name: TensorType((2, CHANNELS)) for name in ("x", "r")}
    builder.add_node(Arithmetic("add"), ("x", "r"), "sum", "")
    builder.add_node(Arithmetic("mul"), ("x", "x"), "square", "")
    graph = builder.finish()
    assert not any(is_monotone(graph, node, "x", CHANNELS) for node in graph.nodes)


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((), 2, "all"),
        ((1, 1), 2, "all"),
        ((5,), 2, "channels"),
        ((1, 5), 2, "channels"),
        ((5, 1), 2, None),
        ((2, 5), 2, None),
        ((5, 1, 1), 4, "channels"),
        ((1, 5, 1, 1), 4, "channels"),
        ((5,), 4, None),
        ((5, 5, 1), 4, None),
        ((5, 1), 4, None),
        ((4, 1, 1), 4, None),
    ],
)
def test_a_constant_along_the_channels(shape: tuple[int, ...], rank: int, expected: str | None) -> None:
    constant = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    found = along_channels(constant, rank, CHANNELS)
    values = {"all": [0.0] * CHANNELS, "channels": [0.0, 1.0, 2.0, 3.0, 4.0], None: None}[expected]
    assert (None if found is None else found.tolist()) == values


def test_an_operand_that_changes_the_shape_is_none() -> None:
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((1, CHANNELS))}
    name = builder.add_constant("c", torch.ones(2, CHANNELS))
    builder.add_node(Arithmetic("add"), ("x", name), "y", "")
    graph = builder.finish()
    assert operand(graph, graph.nodes[0], "x", CHANNELS) is None


def test_rows_of_several_axes_have_their_channels_last() -> None:
    """As dense layers do; only images have them second."""
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((2, 3, CHANNELS))}
    name = builder.add_constant("c", torch.arange(5.0))
    other = builder.add_constant("c", torch.ones(3, 1))
    last, middle = Node(Arithmetic("add"), ("x", name), "y", ""), Node(Arithmetic("add"), ("x", other), "z", "")
    builder.types |= {"y": TensorType((2, 3, CHANNELS)), "z": TensorType((2, 3, CHANNELS))}
    builder.nodes = [last, middle]
    graph = builder.finish()
    found = operand(graph, last, "x", CHANNELS)
    assert found is not None
    assert found.tolist() == [0, 1, 2, 3, 4]
    assert operand(graph, middle, "x", 3) is None
