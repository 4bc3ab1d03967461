"""Cut what is computed from, where only a part of the result is read: the class token of a transformer."""

from __future__ import annotations

import dataclasses
import heapq

from netopt.graph.edit import GraphEditor
from netopt.graph.graph import Graph, Node
from netopt.ops import Slice


def slice_early(graph: Graph) -> Graph:
    """Move each slice before the op that it cuts the result of, where that op works on each part by itself.

    And where all readers of the result are that same slice. What the op reads is cut in its place.
    """
    editor = GraphEditor(graph)
    places = list(range(editor.places))
    while places:
        place = heapq.heappop(places)
        for node in editor.at(place):
            cut = _cut_by_all(editor, node)
            axes = cut and node.op.parallel_axes(cut.axis, editor.node_types(node))
            if cut and axes:
                # What is read is now cut itself, and the part may be cut again.
                sources = [editor.producer(name) for name in node.inputs]
                _move(editor, node, cut, axes)
                for changed in {place, *(editor.place(source) for source in sources if source is not None)}:
                    heapq.heappush(places, changed)
                break
    return editor.finish()


def _cut_by_all(editor: GraphEditor, node: Node) -> Slice | None:
    """The slice that all readers of the node's output are, if they are one."""
    ops = [user.op for user in editor.users(node.output)]
    if not ops or node.output in editor.outputs or not isinstance(ops[0], Slice):
        return None
    return ops[0] if all(op == ops[0] for op in ops) else None


def _move(editor: GraphEditor, node: Node, cut: Slice, axes: tuple[int | None, ...]) -> None:
    inputs = []
    for name, axis in zip(node.inputs, axes, strict=True):
        own = dataclasses.replace(cut, axis=axis if axis is not None else 0)
        if axis is None:
            inputs.append(name)
        elif name in editor.constants:
            value = own.reference(editor.constants[name])
            inputs.append(editor.add_constant(f"{name}_cut", value, editor.types[name].format))
        else:
            inputs.append(editor.insert_before(node, own, (name,), f"{name}_cut"))
    op = node.op.of_part(cut.axis, range(cut.start, cut.stop, cut.step))
    part = editor.insert_before(node, op, tuple(inputs), f"{node.output}_cut")
    for reader in editor.users(node.output):
        editor.rename(reader.output, part)
        editor.remove(reader)
    editor.remove(node)
