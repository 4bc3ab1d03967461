"""Conversions stand where an op does not read or write a format, and nothing else changes."""

from __future__ import annotations

import torch

from netopt.graph import Graph, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.convert_formats import convert_formats
from netopt.numerics import FLOAT32, FixedPoint, NumberFormat
from netopt.ops import Convert, Op, Softmax, TensorType

CODES = FixedPoint(8, 4)


def graph_of(op: Op, given: dict[str, NumberFormat], written: NumberFormat, constants: tuple[str, ...] = ()) -> Graph:
    """One op on values of shape (2, 6) in these formats."""
    builder = GraphBuilder()
    torch.manual_seed(0)
    for name, format_ in given.items():
        builder.types[name] = TensorType((2, 6), format_)
        if name in constants:
            builder.constants[name] = format_.encode(torch.randn(2, 6))
        else:
            builder.inputs += (name,)
    output = builder.add_node(op, tuple(given), "y", "layer")
    builder.types[output] = TensorType((2, 6), written)
    builder.outputs = (output,)
    return builder.finish()


def test_what_an_op_takes_stays_as_it_is() -> None:
    graph = graph_of(Convert(), {"x": CODES}, FixedPoint(16, 9))
    assert convert_formats(graph) == graph


def test_codes_are_converted_before_and_after_an_op_of_floats() -> None:
    graph = graph_of(Softmax(1), {"x": CODES}, FixedPoint(8, 7))
    converted = convert_formats(graph)
    verify(converted)
    assert [type(node.op).__name__ for node in converted.nodes] == ["Convert", "Softmax", "Convert"]
    formats = [converted.types[node.output].format for node in converted.nodes]
    assert formats == [FLOAT32, FLOAT32, FixedPoint(8, 7)]
    assert converted.nodes[-1].output == graph.outputs[0] and converted.nodes[1].layer == "layer"
    x = torch.randn(2, 6)
    assert torch.equal(interpret(converted, [x], dtype=torch.float64)[0], interpret(graph, [x], dtype=torch.float64)[0])


def test_a_constant_is_converted_now() -> None:
    graph = graph_of(Softmax(1), {"w": CODES}, FLOAT32, constants=("w",))
    converted = convert_formats(graph)
    verify(converted)
    (node,) = converted.nodes
    assert converted.types[node.inputs[0]].format == FLOAT32
    assert torch.equal(converted.constants[node.inputs[0]], CODES.decode(graph.constants["w"]))


def test_a_value_is_converted_once_for_all_its_readers() -> None:
    builder = GraphBuilder()
    builder.types["x"], builder.inputs = TensorType((2, 6), CODES), ("x",)
    builder.outputs = tuple(builder.add_node(Softmax(axis), ("x",), "y", "") for axis in (0, 1))
    builder.types |= dict.fromkeys(builder.outputs, TensorType((2, 6)))
    converted = convert_formats(builder.finish())
    assert [type(node.op).__name__ for node in converted.nodes] == ["Convert", "Softmax", "Softmax"]


def test_floats_stay_as_they_are() -> None:
    graph = graph_of(Softmax(1), {"x": FLOAT32}, FLOAT32)
    assert convert_formats(graph) == graph
