"""Put images channels last, with the halo that convolutions read, and copies only where that must end."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.spread import spread
from netopt.ops import ROW_MAJOR, Layout, Layouts, Relayout
from netopt.ops.spatial import Sides, union_of_sides


def choose_layouts(graph: Graph) -> Graph:
    """Choose a layout for every value, and copy between layouts where an op needs another one than its input has."""
    images = _images(graph)
    if not images:
        return graph
    halos = _halos(graph, images)
    layouts = {name: Layout(True, halos[name]) for name in images}
    # One pixel a channel is the same memory in both orders; not where channels are packed.
    pixels = (n for n in images if graph.types[n].shape[2:] == (1, 1) and not graph.types[n].format.packs_channels)
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
    between: list[set[str]] = []
    for node in graph.nodes:
        values = {name for name in (*node.inputs, node.output) if len(graph.types[name].shape) == 4}
        if node.op.layouts is Layouts.IMAGES:
            images |= {node.output, *values}
        elif node.op.layouts is Layouts.ANY and node.output in values:
            between.append(values)
    images = spread(images, between)
    whole = {name for name in images if graph.types[name].format.is_whole}
    return images - set(graph.constants) - _written_row_major(graph) - whole


def _written_row_major(graph: Graph) -> set[str]:
    """Values that an op with a layout of its own writes: they are copied for those who want images."""
    return {node.output for node in graph.nodes if node.op.layouts is Layouts.ROW_MAJOR}


def _halos(graph: Graph, images: set[str]) -> dict[str, Sides]:
    """The most, on each side, that the ops that read each image reach beyond it."""
    halos = dict.fromkeys(images, (0, 0, 0, 0))
    for node in graph.nodes:
        if node.inputs and node.inputs[0] in images:
            read = node.op.halo_read(graph.node_types(node))
            halos[node.inputs[0]] = union_of_sides(halos[node.inputs[0]], read)
    return halos


def _in_layout(
    name: str, node: Node, graph: Graph, builder: GraphBuilder, copies: dict[tuple[str, Layout], str]
) -> str:
    """The value in a layout that the node reads: itself, or a copy, made once."""
    if name in graph.constants:
        return name
    type_ = builder.types[name]
    types = [builder.types[value] for value in node.inputs]
    wanted = node.op.wanted_layout(node.inputs.index(name), types, builder.types[node.output])
    if wanted is None or wanted == type_.layout:
        return name
    if (name, wanted) not in copies:
        copy = builder.add_node(Relayout(), (name,), f"{name}_relayout", node.layer)
        builder.types[copy] = dataclasses.replace(type_, layout=wanted)
        copies[name, wanted] = copy
    return copies[name, wanted]
