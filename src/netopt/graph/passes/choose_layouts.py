"""Put images channels last, with the halo that convolutions read, and copies only where that must end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.numerics import SIGNS
from netopt.ops import (
    CHANNELS_LAST,
    ROW_MAJOR,
    AdaptivePool2d,
    Arithmetic,
    BinaryConv2d,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Layout,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Pointwise,
    Pool2d,
    Relayout,
    Resize,
    Sign,
    SignPool2d,
    Slice,
    SpatialMean,
    TensorType,
    Winograd2d,
)
from netopt.ops.spatial import Sides

IMAGE_OPS = (
    AdaptivePool2d,
    BinaryConv2d,
    Conv2d,
    ConvTranspose2d,
    PixelShuffle,
    PixelUnshuffle,
    Pool2d,
    Resize,
    SignPool2d,
    SpatialMean,
    Winograd2d,
)
ANY_LAYOUT = (Pointwise, Arithmetic, ChannelShuffle, Concat, Pad, Sign, Slice)
# Ops whose kernels read and write images wherever they lie, with any halo and pitch.
ON_IMAGES = (*IMAGE_OPS, *ANY_LAYOUT, Relayout)


def choose_layouts(graph: Graph) -> Graph:
    """Choose a layout for every value, and copy between layouts where an op needs another one than its input has."""
    images = _images(graph)
    if not images:
        return graph
    halos = _halos(graph, images)
    layouts = {name: Layout(True, halos[name]) for name in images}
    # One pixel a channel is the same memory in both orders; signs are packed along the channels.
    pixels = (n for n in images if graph.types[n].shape[2:] == (1, 1) and graph.types[n].format != SIGNS)
    layouts |= {n: ROW_MAJOR for n in pixels if not any(halos[n])}
    builder = GraphBuilder(graph)
    for name, layout in layouts.items():
        builder.types[name] = dataclasses.replace(graph.types[name], layout=layout)
    copies: dict[tuple[str, Layout], str] = {}
    for node in graph.nodes:
        inputs = tuple(_in_layout(name, node, graph, builder, copies) for name in node.inputs)
        builder.nodes.append(Node(node.op, inputs, node.output, node.layer))
    return builder.finish()


def _images(graph: Graph) -> set[str]:
    """The values that are to be channels last: what image ops read and write, and what lies between such values."""
    images: set[str] = set()
    for node in graph.nodes:
        if isinstance(node.op, IMAGE_OPS):
            images |= {node.output, *(name for name in node.inputs if len(graph.types[name].shape) == 4)}
    changed = bool(images)
    while changed:
        before = len(images)
        for node in graph.nodes:
            values = [name for name in (*node.inputs, node.output) if len(graph.types[name].shape) == 4]
            if isinstance(node.op, ANY_LAYOUT) and node.output in values and images & set(values):
                images |= set(values)
        changed = len(images) > before
    return images - set(graph.constants) - _written_row_major(graph)


def _written_row_major(graph: Graph) -> set[str]:
    """Values that an op with a layout of its own writes: they are copied for those who want images."""
    return {node.output for node in graph.nodes if not isinstance(node.op, (*IMAGE_OPS, *ANY_LAYOUT))}


def _halos(graph: Graph, images: set[str]) -> dict[str, Sides]:
    """The most, on each side, that the convolutions that read each image reach beyond it."""
    halos = dict.fromkeys(images, (0, 0, 0, 0))
    for node in graph.nodes:
        if node.inputs and node.inputs[0] in images:
            top, bottom, left, right = halos[node.inputs[0]]
            p = halo_read(node, graph.types)
            halos[node.inputs[0]] = (max(top, p[0]), max(bottom, p[1]), max(left, p[2]), max(right, p[3]))
    return halos


def halo_read(node: Node, types: Mapping[str, TensorType]) -> Sides:
    """The zeros around its first input that a node reads."""
    if not isinstance(node.op, BinaryConv2d | Conv2d | ConvTranspose2d | Winograd2d):
        return (0, 0, 0, 0)
    return node.op.halo(*(types[name].shape for name in node.inputs[:2]))


def _in_layout(
    name: str, node: Node, graph: Graph, builder: GraphBuilder, copies: dict[tuple[str, Layout], str]
) -> str:
    """The value in a layout that the node reads: itself, or a copy, made once."""
    if name in graph.constants:
        return name
    type_ = builder.types[name]
    wanted = wanted_layout(name, node, builder.types)
    if wanted is None or wanted == type_.layout:
        return name
    if (name, wanted) not in copies:
        copy = builder.add_node(Relayout(), (name,), f"{name}_relayout", node.layer)
        builder.types[copy] = dataclasses.replace(type_, layout=wanted)
        copies[name, wanted] = copy
    return copies[name, wanted]


def wanted_layout(name: str, node: Node, types: Mapping[str, TensorType]) -> Layout | None:
    """The layout that the node needs `name` in; None if it takes what is there."""
    type_ = types[name]
    if isinstance(node.op, Relayout):
        return None
    if isinstance(node.op, IMAGE_OPS):
        halo = halo_read(node, types) if name == node.inputs[0] else (0, 0, 0, 0)
        one_pixel = type_.shape[2:] == (1, 1) and not any(halo)
        return None if type_.layout.channels_last or one_pixel else Layout(True, halo)
    if isinstance(node.op, ANY_LAYOUT) and types[node.output].layout.channels_last:
        return None  # read by logical coordinates, whatever the layout
    if isinstance(node.op, Permute) and node.op.axes == (0, 2, 3, 1) and type_.layout == CHANNELS_LAST:
        return None
    return ROW_MAJOR
