"""Cut what is computed from, where only a part of the result is read: the class token of a transformer."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node, replace_values
from netopt.ops import Arithmetic, Dense, LayerNorm, Matmul, Op, Pointwise, Reshape, Slice, Softmax, View


def slice_early(graph: Graph) -> Graph:
    """Move each slice before the op that it cuts the result of, where that op works on each part by itself.

    And where all readers of the result are that same slice. What the op reads is cut in its place.
    """
    while (moved := _move_one(graph)) is not None:
        graph = moved
    return graph


def _move_one(graph: Graph) -> Graph | None:
    users = graph.users()
    for node in graph.nodes:
        readers = users[node.output]
        if not readers or node.output in graph.outputs or not isinstance(readers[0].op, Slice):
            continue
        cut = readers[0].op
        if any(reader.op != cut for reader in readers):
            continue
        cuts = _cuts(graph, node, cut)
        if cuts is not None:
            return _moved(graph, node, readers, cuts)
    return None


def _cuts(graph: Graph, node: Node, cut: Slice) -> list[Slice | None] | None:
    """How to cut each input so that the node computes the cut alone; None where that cannot be."""
    rank = len(graph.types[node.output].shape)
    result: list[Slice | None] | None = None
    match node.op:
        case Pointwise():
            result = [cut]
        case Softmax(axis) if axis != cut.axis:
            result = [cut]
        case LayerNorm(count) if cut.axis < rank - count:
            result = [cut, None, None]
        case Dense() if cut.axis < rank - 1:
            result = [cut, None, *[None] * node.op.has_bias, *[cut] * node.op.has_residual]
        case Arithmetic():
            result = [_of_broadcast(graph, name, node, cut) for name in node.inputs]
        case Matmul() if (node.op.axes or tuple(range(rank)))[cut.axis] == rank - 2:
            rows = dataclasses.replace(cut, axis=len(graph.types[node.inputs[0]].shape) - 2)
            result = [rows if node.op.first is None else None, None]
        case Reshape(shape) if shape[: cut.axis + 1] == graph.types[node.inputs[0]].shape[: cut.axis + 1]:
            result = [cut]
    return result


def _of_broadcast(graph: Graph, name: str, node: Node, cut: Slice) -> Slice | None:
    """The same cut of an operand, or none where it is broadcast along the axis."""
    shape = graph.types[name].shape
    axis = cut.axis - len(graph.types[node.output].shape) + len(shape)
    return dataclasses.replace(cut, axis=axis) if axis >= 0 and shape[axis] > 1 else None


def _moved(graph: Graph, node: Node, readers: list[Node], cuts: list[Slice | None]) -> Graph:
    builder = GraphBuilder(graph)
    renames: dict[str, str] = {}
    for current in graph.nodes:
        if current is node:
            inputs = []
            for name, cut in zip(node.inputs, cuts, strict=True):
                if cut is None:
                    inputs.append(name)
                elif name in graph.constants:
                    part = cut.reference(graph.constants[name])
                    inputs.append(builder.add_constant(f"{name}_cut", part, graph.types[name].format))
                else:
                    inputs.append(builder.add_node(cut, (name,), f"{name}_cut", node.layer))
            result = builder.add_node(
                _resized(graph, node, readers[0]), tuple(inputs), f"{node.output}_cut", node.layer
            )
            renames = {reader.output: result for reader in readers}
        else:
            builder.nodes.append(current)
    return replace_values(builder.finish(), renames, frozenset(renames))


def _resized(graph: Graph, node: Node, reader: Node) -> Op:
    """The node's op for the cut: a reshape to the smaller shape, a product of a smaller view."""
    if isinstance(node.op, Reshape):
        return Reshape(graph.types[reader.output].shape)
    if isinstance(node.op, Matmul) and node.op.first is not None:
        assert isinstance(reader.op, Slice)
        view, cut = node.op.first, reader.op
        shape, strides = list(view.shape), list(view.strides)
        shape[-2], strides[-2] = len(range(cut.start, cut.stop, cut.step)), view.strides[-2] * cut.step
        offset = view.offset + cut.start * view.strides[-2]
        return dataclasses.replace(node.op, first=View(tuple(shape), tuple(strides), offset))
    return node.op
