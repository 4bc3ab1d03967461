"""Put conversions where an op does not read or write a value in the format that it is stored in."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.numerics import FLOAT32
from netopt.ops import Convert, TensorType


def convert_formats(graph: Graph) -> Graph:
    """Let such an op read and write float32, and convert before and after it; constants are converted now.

    A number in a format is one in float32, too, so that nothing but what the op computes with changes.
    """
    builder = GraphBuilder(graph)
    copies: dict[str, str] = {}
    for node in graph.nodes:
        node = _with_readable_inputs(node, graph, builder, copies)
        types = [builder.types[name] for name in node.inputs]
        found = graph.types[node.output]
        if found.format == FLOAT32 or found.format.is_whole or node.op.writes(found.format, types):
            builder.nodes.append(node)
            continue
        numbers = builder.fresh_name(f"{node.output}_numbers")
        builder.types[numbers] = dataclasses.replace(found, format=FLOAT32)
        builder.nodes.append(dataclasses.replace(node, output=numbers))
        builder.nodes.append(Node(Convert(), (numbers,), node.output, node.layer))
    return builder.finish()


def _with_readable_inputs(node: Node, graph: Graph, builder: GraphBuilder, copies: dict[str, str]) -> Node:
    """The node, reading float32 in the place of what it does not read as it is."""
    inputs = list(node.inputs)
    while True:
        # What it reads of one input may depend on the formats of the others.
        types = [builder.types[name] for name in inputs]
        wrong = [index for index, type_ in enumerate(types) if _is_wrong(node, index, type_, types)]
        if not wrong:
            return dataclasses.replace(node, inputs=tuple(inputs))
        inputs[wrong[0]] = _in_float(inputs[wrong[0]], node, graph, builder, copies)


def _is_wrong(node: Node, index: int, type_: TensorType, types: list[TensorType]) -> bool:
    converted = type_.format.is_real and type_.format != FLOAT32
    return converted and not node.op.reads(index, type_.format, types)


def _in_float(name: str, node: Node, graph: Graph, builder: GraphBuilder, copies: dict[str, str]) -> str:
    """The same numbers in float32, converted once."""
    if name in copies:
        return copies[name]
    if name in graph.constants:
        copies[name] = builder.add_constant(f"{name}_float32", graph.numbers(name))
    else:
        copies[name] = builder.fresh_name(f"{name}_float32")
        builder.types[copies[name]] = dataclasses.replace(graph.types[name], format=FLOAT32)
        builder.nodes.append(Node(Convert(), (name,), copies[name], node.layer))
    return copies[name]
