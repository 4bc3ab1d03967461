"""Each invariant of a graph, broken by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from netopt.errors import InvalidArgument
from netopt.graph import Graph, Node, verify
from netopt.graph.graph import GraphBuilder
from netopt.numerics import SIGNS, FixedPoint, Int32
from netopt.ops import Arithmetic, Dense, Pointwise, Reshape, Sign, TensorType

RELU = Pointwise("relu")


def _good() -> Graph:
    """y = relu(x W^T + b), with x (2, 3), W (4, 3); outputs y and x."""
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((2, 3))}
    weight = builder.add_constant("w", torch.ones(4, 3))
    bias = builder.add_constant("b", torch.ones(4))
    dense = builder.add_node(Dense(has_bias=True), ("x", weight, bias), "d", "fc")
    builder.outputs = (builder.add_node(RELU, (dense,), "y", "act"), "x")
    return builder.finish()


def _without(graph: Graph, name: str) -> Graph:
    """The graph with the type of one value missing."""
    return dataclasses.replace(graph, types={key: value for key, value in graph.types.items() if key != name})


def _typed(graph: Graph, **types: TensorType) -> Graph:
    return dataclasses.replace(graph, types={**graph.types, **types})


def _constant(graph: Graph, value: torch.Tensor) -> Graph:
    return dataclasses.replace(graph, constants={**graph.constants, "w": value})


def _nodes(graph: Graph, *nodes: Node) -> Graph:
    return dataclasses.replace(graph, nodes=nodes)


def _of_signs(graph: Graph) -> Graph:
    """The graph with signs in the place of its only op, and of its output."""
    types = {**graph.types, "y": TensorType((2, 4), SIGNS)}
    return dataclasses.replace(_nodes(graph, graph.nodes[0], Node(Sign(), ("d",), "y", "")), types=types)


ENDS = "expected float32, bfloat16, int64, int32, uint8, bool, codes of 8 or 16 bits"

BROKEN: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "an output of packed signs": (
        _of_signs,
        f"graph: format of 'y', an input or output: {ENDS}, found sign",
    ),
    "an input of packed signs that nothing reads": (
        lambda g: _typed(dataclasses.replace(g, inputs=("x", "s")), s=TensorType((2, 4), SIGNS)),
        f"graph: format of 's', an input or output: {ENDS}, found sign",
    ),
    "an output of codes with a step for each row": (
        lambda g: _typed(g, y=TensorType((2, 4), FixedPoint(8, (1, 2)))),
        f"graph: format of 'y', an input or output: {ENDS}, found fixed",
    ),
    "a value of codes that lie side by side": (
        lambda g: _typed(g, d=TensorType((2, 4), FixedPoint(7, 1))),
        "graph: format of 'd': expected one of values, found FixedPoint(bits=7, fraction_bits=1, signed=True)",
    ),
    "a node reads a value of a later node": (
        lambda g: _nodes(g, *reversed(g.nodes)),
        "layer 'act': graph: input 'd' of 'y': expected a value defined before",
    ),
    "a node reads its own output": (
        lambda g: _nodes(g, g.nodes[0], Node(RELU, ("y",), "y", "act")),
        "layer 'act': graph: input 'y' of 'y': expected a value defined before",
    ),
    "a node reads what does not exist": (
        lambda g: _nodes(g, g.nodes[0], Node(RELU, ("z",), "y", "act")),
        "graph: input 'z' of 'y': expected a value defined before",
    ),
    "two nodes write one value": (
        lambda g: _nodes(g, *g.nodes, g.nodes[1]),
        "graph: value 'y': expected one definition, found two",
    ),
    "a node writes an input": (
        lambda g: _nodes(g, *g.nodes, Node(RELU, ("x",), "x", "")),
        "graph: value 'x': expected one definition, found two",
    ),
    "a node writes a constant": (
        lambda g: _nodes(g, *g.nodes, Node(RELU, ("x",), "w", "")),
        "graph: value 'w': expected one definition, found two",
    ),
    "an input stands twice": (
        lambda g: dataclasses.replace(g, inputs=("x", "x")),
        "graph: value 'x': expected one definition, found two",
    ),
    "an input is a constant too": (
        lambda g: dataclasses.replace(g, inputs=("x", "w")),
        "graph: value 'w': expected one definition, found two",
    ),
    "an output does not exist": (
        lambda g: dataclasses.replace(g, outputs=("y", "z")),
        "graph: output 'z': expected a value defined in the graph",
    ),
    "the op cannot take its inputs": (
        lambda g: _nodes(g, Node(Dense(has_bias=True), ("x", "w", "w"), "d", "fc"), g.nodes[1]),
        "layer 'fc': graph: 'd': bias of dense: expected (4,), found (4, 3)",
    ),
    "the op wants more inputs": (
        lambda g: _nodes(g, Node(Dense(has_bias=True), ("x", "w"), "d", "fc"), g.nodes[1]),
        "layer 'fc': graph: 'd': inputs of dense: expected 3, found 2",
    ),
    "the op wants another format": (
        lambda g: _typed(g, x=TensorType((2, 3), Int32())),
        "layer 'fc': graph: 'd': input format of dense: expected float32, found int32",
    ),
    "an output has another shape than the op infers": (
        lambda g: _typed(g, y=TensorType((4, 2))),
        "graph: type of 'y': expected float32[2, 4], found float32[4, 2]",
    ),
    "an output has another format than the op infers": (
        lambda g: _typed(g, y=TensorType((2, 4), Int32())),
        "graph: type of 'y': expected float32[2, 4], found int32[2, 4]",
    ),
    "an output has no type": (lambda g: _without(g, "y"), "graph: type of 'y': expected float32[2, 4]"),
    "an input that a node reads has no type": (lambda g: _without(g, "x"), "graph: "),
    "an input that nothing reads has no type": (
        lambda g: dataclasses.replace(g, inputs=("x", "unread")),
        "graph: typed values: expected ['b', 'd', 'unread', 'w', 'x', 'y'], found ['b', 'd', 'w', 'x', 'y']",
    ),
    "a type has no value": (
        lambda g: _typed(g, z=TensorType(())),
        "graph: typed values: expected ['b', 'd', 'w', 'x', 'y'], found ['b', 'd', 'w', 'x', 'y', 'z']",
    ),
    "a constant has no type": (
        lambda g: _without(g, "w"),
        "graph: constant 'w': expected a contiguous CPU tensor of type None, found torch.float32 (4, 3) on cpu",
    ),
    "a constant has another shape": (
        lambda g: _constant(g, torch.ones(3, 4)),
        "graph: constant 'w': expected a contiguous CPU tensor of type float32[4, 3], found torch.float32 (3, 4)",
    ),
    "a constant is float64": (
        lambda g: _constant(g, torch.ones(4, 3, dtype=torch.float64)),
        "graph: constant 'w': expected a contiguous CPU tensor of type float32[4, 3], found torch.float64",
    ),
    "a constant is of integers": (
        lambda g: _constant(g, torch.ones(4, 3, dtype=torch.int64)),
        "graph: constant 'w': expected a contiguous CPU tensor of type float32[4, 3], found torch.int64",
    ),
    "nothing reads a constant": (
        lambda g: _typed(
            dataclasses.replace(g, constants={**g.constants, "unread": torch.ones(1)}), unread=TensorType((1,))
        ),
        "graph: constants: expected no unused ones, found ['unread']",
    ),
    "a constant is not contiguous": (
        lambda g: _constant(g, torch.ones(3, 4).T),
        "graph: constant 'w': expected a contiguous CPU tensor",
    ),
    "a constant is on another device": (
        lambda g: _constant(g, torch.ones(4, 3, device="meta")),
        "expected a contiguous CPU tensor of type float32[4, 3], found torch.float32 (4, 3) on meta",
    ),
    "a constant is typed with another format": (
        lambda g: _typed(g, w=TensorType((4, 3), Int32())),
        "graph: constant 'w': expected a contiguous CPU tensor of type int32[4, 3]",
    ),
    "a view changes the number of elements": (
        lambda g: _nodes(g, *g.nodes, Node(Reshape((5,)), ("y",), "z", "")),
        "the model itself: graph: 'z': reshape: expected 8 elements, found shape (5,)",
    ),
    "shapes do not broadcast": (
        lambda g: _nodes(g, *g.nodes, Node(Arithmetic("add"), ("x", "y"), "z", "")),
        "graph: 'z': shapes of add: expected shapes that broadcast, found float32[2, 3] and float32[2, 4]",
    ),
}


def test_a_good_graph_passes() -> None:
    verify(_good())


def test_the_empty_graph_passes() -> None:
    verify(Graph((), (), (), {}, {}))


def test_a_value_may_be_returned_twice() -> None:
    verify(dataclasses.replace(_good(), outputs=("y", "y", "x", "w")))


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_graph_is_refused(what: str) -> None:
    change, message = BROKEN[what]
    with pytest.raises(InvalidArgument) as caught:
        verify(change(_good()))
    assert message in str(caught.value)
