"""Store weights and activations in bfloat16 where the kernels read them so; sums stay in float32."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.numerics import BFLOAT16, FLOAT32
from netopt.ops import (
    AdaptivePool2d,
    Arithmetic,
    BinaryConv2d,
    BinaryDense,
    ChannelShuffle,
    Concat,
    Conv2d,
    Dense,
    LayerNorm,
    Op,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Pointwise,
    Pool2d,
    Relayout,
    Reshape,
    Resize,
    Sign,
    Slice,
    SpatialMean,
    Winograd2d,
)

# Ops whose kernels read and write either format, in any mixture.
_MIXED: tuple[type[Op], ...] = (
    AdaptivePool2d,
    Arithmetic,
    BinaryConv2d,
    BinaryDense,
    Conv2d,
    Dense,
    LayerNorm,
    PixelShuffle,
    PixelUnshuffle,
    Pointwise,
    Pool2d,
    Relayout,
    Resize,
    Sign,
    SpatialMean,
    Winograd2d,
)
# Views, or ops that may become views: one format on both sides.
_SAME: tuple[type[Op], ...] = (Reshape, Permute)
# The same for images, which have four axes; their kernels for other shapes know float32 alone.
_SAME_ON_IMAGES: tuple[type[Op], ...] = (ChannelShuffle, Concat, Slice)


def use_bfloat16(graph: Graph) -> Graph:
    """Make bfloat16 of the weights of dense layers and convolutions, and of the values that allow it.

    A value does if the op that writes it and all that read it can, and it is no output of the network. The weights of
    a layer are rounded if its input is bfloat16, which is what the product instructions of a CPU ask for; those of one
    bit stay as they are, and their scales and biases are rounded.
    """
    narrow = _narrow_values(graph)
    builder = GraphBuilder(graph)
    for name in narrow:
        builder.types[name] = dataclasses.replace(graph.types[name], format=BFLOAT16)
    rounded: dict[str, str] = {}
    for node in graph.nodes:
        weight = node.inputs[1] if len(node.inputs) > 1 else ""
        if multiplies_bfloat16(node, graph) and node.inputs[0] in narrow and graph.types[weight].format == FLOAT32:
            if weight not in rounded:
                value = BFLOAT16.encode(graph.constants[weight])
                rounded[weight] = builder.add_constant(f"{weight}_bfloat16", value, BFLOAT16)
            node = dataclasses.replace(node, inputs=(node.inputs[0], rounded[weight], *node.inputs[2:]))
        if isinstance(node.op, BinaryConv2d | BinaryDense) and not node.op.has_threshold:
            node = _with_narrow_epilogue(node, graph, builder)
        builder.nodes.append(node)
    return builder.finish()


def _with_narrow_epilogue(node: Node, graph: Graph, builder: GraphBuilder) -> Node:
    """A layer of one-bit weights with scale and bias in bfloat16: beside such weights they are many of the bytes."""
    assert isinstance(node.op, BinaryConv2d | BinaryDense)
    inputs = list(node.inputs)
    for index in range(2, node.op.residual_index):
        value = BFLOAT16.encode(graph.numbers(inputs[index]))
        inputs[index] = builder.add_constant(f"{inputs[index]}_bfloat16", value, BFLOAT16)
    return dataclasses.replace(node, inputs=tuple(inputs))


def multiplies_bfloat16(node: Node, graph: Graph) -> bool:
    """Whether it is a layer whose products can be those of bfloat16 numbers: two or more a sum, weights known."""
    if not isinstance(node.op, Conv2d | Dense) or node.inputs[1] not in graph.constants:
        return False
    weight = graph.types[node.inputs[1]].shape
    depthwise = isinstance(node.op, Conv2d) and node.op.groups > 1 and weight[1] == 1
    return not depthwise and (weight[1] > 1 or (len(weight) == 4 and weight[3] > 1))


def _narrow_values(graph: Graph) -> set[str]:
    """The values to store in bfloat16."""
    users, producers = graph.users(), graph.producers()
    narrow = {
        name
        for name in graph.types
        if graph.types[name].format == FLOAT32
        and name not in graph.constants
        and name not in graph.outputs
        and users[name]
        and (name not in producers or takes_bfloat16(producers[name], graph, name))
        and all(takes_bfloat16(user, graph, name) for user in users[name])
    }
    # What a view sees has one format, and so have all views of it.
    changed = True
    while changed:
        mixed = {
            name
            for node in graph.nodes
            if isinstance(node.op, (*_SAME, *_SAME_ON_IMAGES))
            for name in (*node.inputs, node.output)
            if not narrow.issuperset((*node.inputs, node.output))
        }
        changed = bool(narrow & mixed)
        narrow -= mixed
    return narrow


def takes_bfloat16(node: Node, graph: Graph, name: str) -> bool:
    """Whether the node's kernel can read or write this value in bfloat16."""
    if isinstance(node.op, _SAME_ON_IMAGES):
        return len(graph.types[node.output].shape) == 4
    return isinstance(node.op, (*_MIXED, *_SAME))
