"""Let the convolutions and poolings after a padding with zeros pad by themselves."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Conv2d, Pad, Pool2d
from netopt.ops.spatial import Sides


def fold_pad(graph: Graph) -> Graph:
    """pad -> conv2d or average pooling becomes one node, where all that read the padded image are such nodes.

    An average counts these zeros, since they are elements of the image that PyTorch pools.
    """
    users, outputs = graph.users(), set(graph.outputs)
    sides: dict[str, Sides] = {}
    sources: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node.op, Pad) or node.op.zero_sides is None or node.output in outputs:
            continue
        readers = users[node.output]
        if readers and all(_pads(reader, node.output) for reader in readers):
            sides[node.output], sources[node.output] = node.op.zero_sides, node.inputs[0]
    builder = GraphBuilder(graph)
    for node in graph.nodes:
        if node.output in sides:
            continue
        if node.inputs and node.inputs[0] in sides:
            node = _with_padding(node, sides[node.inputs[0]], sources[node.inputs[0]])
        builder.nodes.append(node)
    return builder.finish()


def _pads(node: Node, image: str) -> bool:
    """Whether the node can take the zeros around `image` as its own padding."""
    if node.inputs[0] != image or node.inputs.count(image) > 1:
        return False
    if isinstance(node.op, Pool2d):
        counts_all = node.op.function in ("average_of_all", "sum")
        return counts_all or (node.op.function == "average" and not any(node.op.padding))
    return isinstance(node.op, Conv2d)


def _with_padding(node: Node, sides: Sides, source: str) -> Node:
    assert isinstance(node.op, Conv2d | Pool2d)
    top, bottom, left, right = (own + more for own, more in zip(node.op.padding, sides, strict=True))
    op = dataclasses.replace(node.op, padding=(top, bottom, left, right))
    if isinstance(op, Pool2d) and op.function == "average":
        op = dataclasses.replace(op, function="average_of_all")
    return Node(op, (source, *node.inputs[1:]), node.output, node.layer)
