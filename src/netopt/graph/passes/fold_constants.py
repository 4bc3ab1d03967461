"""Compute what depends on constants alone."""

from __future__ import annotations

import torch

from netopt.graph.graph import Graph, GraphBuilder, Node


def fold_constants(graph: Graph) -> Graph:
    """Replace each node that reads only constants by the constant that it computes."""
    builder = GraphBuilder(graph)
    for node in graph.nodes:
        if node.op.is_repeatable and all(name in builder.constants for name in node.inputs):
            builder.constants[node.output] = _value(node, builder)
        else:
            builder.nodes.append(node)
    return builder.finish()


def _value(node: Node, builder: GraphBuilder) -> torch.Tensor:
    # In float64, rounded once: a folded value is then at least as good as the computed one.
    with torch.no_grad():
        value = node.op.reference(*(_numbers(name, builder) for name in node.inputs))
    if not builder.types[node.output].format.is_whole:
        value = value.to(torch.float32)
    return value.contiguous()


def _numbers(name: str, builder: GraphBuilder) -> torch.Tensor:
    return builder.types[name].format.numbers(builder.constants[name], torch.float64)
