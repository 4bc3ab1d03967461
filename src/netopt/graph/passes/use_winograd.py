"""Compute 3 x 3 convolutions by Winograd's algorithm where that is wanted: faster, and less exact."""

from __future__ import annotations

from collections.abc import Callable

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Conv2d, Op, TensorType, Winograd2d
from netopt.ops.winograd2d import transform_weight

# For a convolution, and the types of its inputs and output: the op to compute it with, itself or a Winograd2d.
Chooser = Callable[[Conv2d, tuple[TensorType, ...], TensorType], Op]


def use_winograd(graph: Graph, chooser: Callable[[Graph], Chooser]) -> Graph:
    """Replace the convolutions for which the graph's chooser returns a `Winograd2d`, and transform their weights."""
    choose = chooser(graph)
    builder = GraphBuilder(graph)
    for node in graph.nodes:
        op = node.op
        if isinstance(op, Conv2d) and fits_winograd(op, graph.node_types(node)) and node.inputs[1] in graph.constants:
            op = choose(op, graph.node_types(node), graph.types[node.output])
        if isinstance(op, Winograd2d):
            weight = transform_weight(graph.constants[node.inputs[1]], op.tile)
            name = builder.add_constant(f"{node.inputs[1]}_winograd{op.tile}", weight)
            node = Node(op, (node.inputs[0], name, *node.inputs[2:]), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def fits_winograd(op: Conv2d, inputs: tuple[TensorType, ...]) -> bool:
    """Whether it is a convolution by 3 x 3, without strides, dilation and groups."""
    return inputs[1].shape[2:] == (3, 3) and (op.stride, op.dilation, op.groups) == ((1, 1), (1, 1), 1)
