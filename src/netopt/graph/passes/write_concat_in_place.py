"""Let the parts of a concatenation be written where they belong in it, and slices be read where they lie.

Channels-last images may lie among the channels of a wider one (`Layout.pitch`). So may row-major values along an axis
that has nothing outside it, where each begins at a multiple of the alignment. Several concatenations share one buffer
where the shorter ones are runs of the longest, as in a dense block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.numerics import ALIGNMENT
from netopt.ops import Concat, Layout, Layouts, Relayout, Slice
from netopt.ops.op import step_bytes
from netopt.ops.spatial import Sides, union_of_sides

# Of a graph with layouts, the outputs of the concatenations that are to copy all their parts.
Copies = Callable[[Graph], Collection[str]]


def write_concat_in_place(graph: Graph, copies: Copies = lambda _: ()) -> Graph:
    """`concats_in_place`, but for the concatenations that `copies` names."""
    return concats_in_place(graph, copies(graph))


def concats_in_place(graph: Graph, copied: Collection[str] = ()) -> Graph:
    """Mark the concatenations and slices that need no copy, and give what they consist of its pitch and halo.

    A part that cannot be written in place is copied into its place alone, if another part of its concatenation can.

    Args:
        graph: after `choose_layouts`.
        copied: outputs of concatenations that are to copy all their parts.
    """
    buffers = _Buffers(graph)
    concats = [
        node
        for node in graph.nodes
        if isinstance(node.op, Concat) and len(node.inputs) > 1 and node.output not in copied
    ]
    # The widest first: it has room for the others.
    for node in sorted(concats, key=lambda node: -graph.types[node.output].elements):
        buffers.join(node)
    for node in graph.nodes:
        if isinstance(node.op, Slice):
            buffers.cut(node)
    return buffers.rewrite() if buffers.views else graph


class _Buffers:
    """Which values lie in a wider one.

    `place` has, for each value that does or that holds others, the buffer, named after the widest value in it, and the
    first byte in it (of an image: of its first pixel). `views` are the outputs of concatenations and slices that need
    no kernel.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users, self.producers = graph.users(), graph.producers()
        self.place: dict[str, tuple[str, int]] = {}
        self.halos: dict[str, Sides] = {}
        self.views: set[str] = set()

    def join(self, node: Node) -> None:
        """Place the parts of a concatenation in its output, and that in a wider buffer if its parts lie there."""
        assert isinstance(node.op, Concat)
        if not self._may_hold(node.output, node.op.axis):
            return
        starts = node.op.view_offsets(self.graph.node_types(node), self.graph.types[node.output])
        if self._is_run(node, starts):
            buffer, _ = self.place[node.output] = self.place[node.inputs[0]]
            self._widen_halo(buffer, self.graph.types[node.output].layout.halo)
            self.views.add(node.output)
            return
        buffer, base = self.place.get(node.output, (node.output, 0))
        parts = {
            name: (buffer, base + start)
            for name, start in zip(reversed(node.inputs), reversed(starts), strict=True)
            if self._may_be_part(name, node, buffer, base + start)
        }
        # Of images each part may be copied alone; no kernel does so in row-major order.
        if len(parts) == len(node.inputs) or (parts and self.graph.types[node.output].layout.channels_last):
            self._start(node.output)
            self.place |= parts
            self.views.add(node.output)
            for name in parts:
                self._widen_halo(buffer, self.graph.types[name].layout.halo)

    def cut(self, node: Node) -> None:
        """Read a slice where it lies, if it is not a part of something else."""
        assert isinstance(node.op, Slice)
        source = node.inputs[0]
        x, y = self.graph.types[source], self.graph.types[node.output]
        start = node.op.start * step_bytes(x, node.op.axis)
        fits = source not in self.graph.constants and node.output not in self.place and node.op.step == 1
        fits = fits and x.format == y.format
        if not (fits and self._may_hold(source, node.op.axis) and self._may_lie_within(node.output, start)):
            return
        has = self.halos.get(self.place.get(source, (source, 0))[0], x.layout.halo)
        if x.layout.channels_last == y.layout.channels_last and union_of_sides(has, y.layout.halo) == has:
            self._start(source)
            self.place[node.output] = self._shifted(source, start)
            self.views.add(node.output)

    def rewrite(self) -> Graph:
        """The graph with the new layouts, marks, and copies of the parts that have their place elsewhere."""
        builder = GraphBuilder(self.graph)
        for name in self.place:
            layout = self._layout(name, self.place[name][0])
            builder.types[name] = dataclasses.replace(self.graph.types[name], layout=layout)
        for node in self.graph.nodes:
            inputs = node.inputs
            if node.output in self.views and isinstance(node.op, Concat):
                inputs = self._in_place_inputs(node, builder)
            op = node.op
            if node.output in self.views and isinstance(op, Concat | Slice):
                op = dataclasses.replace(op, in_place=True)
            builder.nodes.append(Node(op, inputs, node.output, node.layer))
        return builder.finish()

    def _in_place_inputs(self, node: Node, builder: GraphBuilder) -> tuple[str, ...]:
        starts = node.op.view_offsets(self.graph.node_types(node), self.graph.types[node.output])
        inputs = []
        for name, start in zip(node.inputs, starts, strict=True):
            where = self._shifted(node.output, start)
            if self.place.get(name) != where:
                type_ = builder.types[name]
                wide = dataclasses.replace(type_, layout=self._layout(name, where[0]))
                name = builder.add_node(Relayout(), (name,), f"{name}_part", node.layer)
                builder.types[name] = wide
            inputs.append(name)
        return tuple(inputs)

    # --- what may lie where

    def _may_hold(self, name: str, axis: int) -> bool:
        """Whether parts along this axis lie in memory as images with a pitch or as runs of bytes."""
        type_ = self.graph.types[name]
        if type_.layout.channels_last:
            return axis == 1
        return all(size == 1 for size in type_.shape[:axis])

    def _may_lie_within(self, name: str, start: int) -> bool:
        """Whether all that read the value can read it there."""
        if not self.graph.types[name].layout.channels_last:
            return start % ALIGNMENT == 0
        return all(_takes_pitch(user) for user in self.users[name])

    def _may_be_part(self, name: str, node: Node, buffer: str, start: int) -> bool:
        """Whether the value can be written at `start` of the buffer, or is there already."""
        if name in self.place:
            return self.place[name] == (buffer, start)
        if self.graph.types[name].format != self.graph.types[node.output].format:
            return False
        writer = self.producers.get(name)
        if writer is None or writer.op.is_view(self.graph.node_types(writer), self.graph.types[name]):
            return False
        part, whole = self.graph.types[name].layout, self.graph.types[node.output].layout
        if part.channels_last != whole.channels_last or not self._may_lie_within(name, start):
            return False
        if not part.channels_last:
            return True
        return _takes_pitch(writer) and self._takes_halo(buffer, part.halo)

    def _takes_halo(self, buffer: str, halo: Sides) -> bool:
        """Whether the buffer has this halo, or all that read it read it with a larger one."""
        has = self.halos.get(buffer, self.graph.types[buffer].layout.halo)
        return union_of_sides(has, halo) == has or all(_takes_pitch(user) for user in self.users[buffer])

    def _is_run(self, node: Node, starts: tuple[int, ...]) -> bool:
        """Whether the inputs lie one after the other in a buffer, so that the output is there already."""
        if node.output in self.place or node.inputs[0] not in self.place:
            return False
        places = [self.place.get(name) for name in node.inputs]
        if places != [self._shifted(node.inputs[0], start) for start in starts]:
            return False
        buffer, base = self.place[node.inputs[0]]
        layout = self.graph.types[node.output].layout
        same_kind = layout.channels_last == self.graph.types[buffer].layout.channels_last
        return same_kind and self._takes_halo(buffer, layout.halo) and self._may_lie_within(node.output, base)

    # --- places

    def _start(self, name: str) -> None:
        """Let the value hold others, if it does not already."""
        if name not in self.place:
            self.place[name] = (name, 0)
            self.halos[name] = self.graph.types[name].layout.halo

    def _shifted(self, name: str, start: int) -> tuple[str, int]:
        buffer, base = self.place[name]
        return buffer, base + start

    def _widen_halo(self, buffer: str, halo: Sides) -> None:
        self.halos[buffer] = union_of_sides(self.halos[buffer], halo)

    def _layout(self, name: str, buffer: str) -> Layout:
        type_, whole = self.graph.types[name], self.graph.types[buffer]
        if not whole.layout.channels_last:
            return type_.layout
        pitch = whole.shape[1] if whole.shape[1] != type_.shape[1] else 0
        return Layout(True, self.halos[buffer], pitch)


def _takes_pitch(node: Node) -> bool:
    """Whether its kernel reads and writes images wherever they lie, with any halo and pitch."""
    return node.op.layouts is not Layouts.ROW_MAJOR
