"""Put conversions where an op does not read or write a value in the format that it is stored in."""

from __future__ import annotations

import dataclasses

import torch

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.numerics import FLOAT32, CodeFormat, NumberFormat
from netopt.ops import Convert, TensorType


def convert_formats(graph: Graph) -> Graph:
    """Let such an op read and write float32, and convert before and after it; constants are converted now.

    An op that moves elements as they are reads and writes one format. A number in a format is one in float32, too, so
    that nothing but what the op computes with changes.
    """
    builder = GraphBuilder(graph)
    copies: dict[tuple[str, NumberFormat], str] = {}
    for node in graph.nodes:
        node = _with_readable_inputs(node, graph, builder, copies)
        found = graph.types[node.output]
        format_ = _written(node, found.format, [builder.types[name] for name in node.inputs])
        if format_ == found.format:
            builder.nodes.append(node)
            continue
        numbers = builder.fresh_name(f"{node.output}_numbers")
        builder.types[numbers] = dataclasses.replace(found, format=format_)
        builder.nodes.append(dataclasses.replace(node, output=numbers))
        builder.nodes.append(Node(Convert(), (numbers,), node.output, node.layer))
    return builder.finish()


def _written(node: Node, wanted: NumberFormat, types: list[TensorType]) -> NumberFormat:
    """The format in which the op writes what is wanted in another, or in the same."""
    if wanted.is_whole or node.op.writes(wanted, types):
        return wanted
    return types[0].format if _keeps_codes(node, types) else FLOAT32


def _keeps_codes(node: Node, types: list[TensorType]) -> bool:
    return node.op.keeps_format and any(isinstance(type_.format, CodeFormat) for type_ in types)


def _with_readable_inputs(
    node: Node, graph: Graph, builder: GraphBuilder, copies: dict[tuple[str, NumberFormat], str]
) -> Node:
    """The node, reading float32 in the place of what it does not read as it is."""
    inputs = list(node.inputs)
    while True:
        # What it reads of one input may depend on the formats of the others.
        types = [builder.types[name] for name in inputs]
        wrong = [index for index, type_ in enumerate(types) if _is_wrong(node, index, type_, types)]
        if not wrong:
            break
        inputs[wrong[0]] = _converted(inputs[wrong[0]], FLOAT32, node, builder, copies)
    if _keeps_codes(node, types) and len({type_.format for type_ in types}) > 1:
        # What it makes of several is in one format, that of the output.
        wanted = graph.types[node.output].format
        inputs = [_converted(name, wanted, node, builder, copies) for name in inputs]
    return dataclasses.replace(node, inputs=tuple(inputs))


def _is_wrong(node: Node, index: int, type_: TensorType, types: list[TensorType]) -> bool:
    converted = type_.format.is_real and type_.format != FLOAT32
    return converted and not node.op.reads(index, type_.format, types)


def _converted(
    name: str, format_: NumberFormat, node: Node, builder: GraphBuilder, copies: dict[tuple[str, NumberFormat], str]
) -> str:
    """The same numbers in another format, converted once; those that are in it already as they are."""
    found = builder.types[name]
    if found.format == format_ or (name, format_) in copies:
        return copies.get((name, format_), name)
    text = f"{name}_{format_.name}"
    if name in builder.constants:
        numbers = found.format.numbers(builder.constants[name], torch.float64)
        copy = builder.add_constant(text, format_.encode(numbers), format_)
    else:
        copy = builder.fresh_name(text)
        builder.types[copy] = dataclasses.replace(found, format=format_)
        builder.nodes.append(Node(Convert(), (name,), copy, node.layer))
    copies[name, format_] = copy
    return copy
