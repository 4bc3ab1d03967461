"""Proof of a memory plan, by running the graph on names instead of numbers.

Shares no code with the planner: it knows nothing of lifetimes or blocks. It keeps a picture of the arena (which value's
content each byte range holds), lets every node write its output into it, and demands that whatever a node or the caller
reads is still there in full.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from netopt.errors import InvalidArgument
from netopt.graph.graph import Graph, Node
from netopt.memory.plan import MemoryPlan
from netopt.ops import Concat, Slice, TensorType


@dataclass(frozen=True)
class Span:
    """The bytes of a value: `count` runs of `run` bytes, each `pitch` bytes after the one before, from `start`."""

    start: int
    run: int
    pitch: int = 0
    count: int = 1

    @property
    def end(self) -> int:
        return self.start + (self.count - 1) * self.pitch + self.run

    def overlaps(self, other: Span) -> bool:
        """Whether they may have a byte in common; exact for runs, and for those with gaps of one pitch."""
        if not (self.start < other.end and other.start < self.end):
            return False
        if self.pitch != other.pitch or not self.pitch:
            return True
        apart = (other.start - self.start) % self.pitch
        # One in the gaps of the other: nothing in common, whichever pixels lie beside each other.
        return apart < self.run or self.pitch - apart < other.run


def check_plan(graph: Graph, plan: MemoryPlan) -> None:
    """Raise unless the plan keeps every value intact until its last read.

    Raises:
        InvalidArgument: a value has no place, is misaligned, leaves the arena, is overwritten before its last read, or
            is written over an input of the same node where the op does not allow that; or the arena is larger than
            needed.
    """
    places = _places(graph, plan)
    if set(plan.offsets) != set(places):
        raise InvalidArgument("memory plan", expected=f"offsets for {sorted(places)}", found=sorted(plan.offsets))
    used = max((place.end for place in places.values()), default=0)
    if not used <= plan.arena_bytes < used + 64 + 1 or plan.arena_bytes < plan.lower_bound:
        raise InvalidArgument("memory plan: arena", expected=f"{used} bytes, rounded up to 64", found=plan.arena_bytes)
    arena = _Arena()
    for name in graph.inputs:
        arena.write(name, places[name])
    for node in graph.nodes:
        _run(node, graph, places, arena)
    for name in graph.outputs:
        _read(name, arena, graph, "by the caller")


class _Arena:
    """The values that are intact, by where they lie.

    Those of like length, up to a factor of two, are kept in the order of their first bytes: what a write reaches is
    found without a look at all the others, so that the proof takes about as many steps as there are values.
    """

    def __init__(self) -> None:
        self._intact: set[str] = set()
        self._by_length: dict[int, list[tuple[int, str, Span]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._intact

    def add(self, name: str, place: Span) -> None:
        """A view: it overwrites nothing."""
        self._intact.add(name)
        row = self._by_length.setdefault((place.end - place.start).bit_length(), [])
        row.insert(bisect_left(row, (place.start, name)), (place.start, name, place))

    def write(self, name: str, place: Span) -> None:
        """A value, over whatever was there."""
        for bits, row in self._by_length.items():
            # Their lengths are below 2^bits: one that begins further to the front ends before the place.
            first, last = bisect_left(row, (place.start - 2**bits,)), bisect_left(row, (place.end,))
            left = [entry for entry in row[first:last] if not entry[2].overlaps(place)]
            if len(left) < last - first:
                self._intact -= {other for _, other, _ in row[first:last]} - {other for _, other, _ in left}
                row[first:last] = left
        self.add(name, place)


def _run(node: Node, graph: Graph, places: dict[str, Span], arena: _Arena) -> None:
    for name in node.inputs:
        _read(name, arena, graph, f"by '{node.output}'")
    if node.op.is_view(graph.node_types(node), graph.types[node.output]):
        _check_view(node, places, graph)
        arena.add(node.output, places[node.output])
        return
    if _scratch(node) in places:
        arena.write(_scratch(node), places[_scratch(node)])
        for name in node.inputs:
            _read(name, arena, graph, f"by '{node.output}' beside its scratch memory")
        _check_scratch(node, places)
    _check_own_inputs(node, places, graph)
    arena.write(node.output, places[node.output])


def _scratch(node: Node) -> str:
    return f"{node.output} (scratch)"


def _check_scratch(node: Node, places: dict[str, Span]) -> None:
    if places[_scratch(node)].overlaps(places[node.output]):
        raise InvalidArgument(
            f"memory plan: '{_scratch(node)}'", expected=f"no overlap with '{node.output}'", found="overlap"
        )


def _places(graph: Graph, plan: MemoryPlan) -> dict[str, Span]:
    """Where the plan has all that needs a place: inputs, computed values, scratch memory."""
    places = {name: _place(graph, plan, name) for name in graph.types if name not in graph.constants}
    for node in graph.nodes:
        if size := node.op.scratch_bytes(graph.node_types(node)):
            place = Span(plan.offsets.get(_scratch(node), -1), size)
            places[_scratch(node)] = _check_place(plan, _scratch(node), place, 64)
    return places


def _place(graph: Graph, plan: MemoryPlan, name: str) -> Span:
    type_, start = graph.types[name], plan.offsets.get(name, -1)
    pitch = type_.layout.pitch
    place = Span(start, type_.bytes)
    if pitch and type_.elements:
        count = math.prod(type_.layout.physical(type_.shape)[:3])
        run, step = (type_.format.storage_bytes((channels,)) for channels in (type_.shape[1], pitch))
        place = Span(start, run, step, count)
    # A part of a wider image begins at one of its channels.
    return _check_place(plan, name, place, type_.format.storage_bytes((1,)) if pitch else 64)


def _check_place(plan: MemoryPlan, name: str, place: Span, alignment: int) -> Span:
    start = place.start
    if start < 0 or start % alignment or place.end > plan.arena_bytes:
        raise InvalidArgument(
            f"memory plan: place of '{name}'",
            expected=f"a multiple of {alignment} from 0, up to {plan.arena_bytes}",
            found=f"{start} to {place.end}",
        )
    return place


def _check_view(node: Node, places: dict[str, Span], graph: Graph) -> None:
    """Each element of the output must be where the input has it."""
    output, position = graph.types[node.output], 0
    for name in node.inputs:
        type_ = graph.types[name]
        shift = 0
        if isinstance(node.op, Concat):
            fits, shift = _lies_within(type_, output, node.op.axis), position * _step(output, node.op.axis)
            position += type_.shape[node.op.axis]
        elif isinstance(node.op, Slice):
            fits, shift = _lies_within(output, type_, node.op.axis), -node.op.start * _step(type_, node.op.axis)
            fits = fits and node.op.step == 1
        else:
            fits = name in places and places[name].run == places[node.output].run and type_.format == output.format
        if not fits or name not in places or places[name].start != places[node.output].start + shift:
            where = f"the place of '{name}'" + (f" {-shift} bytes further on" if shift else "")
            raise InvalidArgument(f"memory plan: '{node.output}'", expected=where)


def _lies_within(part: TensorType, whole: TensorType, axis: int) -> bool:
    """Whether elements and zeros of the part lie as far from each other as in the whole, which differs along `axis`."""
    if part.format != whole.format or part.layout.channels_last != whole.layout.channels_last:
        return False
    if whole.layout.channels_last:
        pitches = [type_.layout.pitch or type_.shape[1] for type_ in (part, whole)]
        return axis == 1 and part.layout.halo == whole.layout.halo and pitches[0] == pitches[1]
    return math.prod(whole.shape[:axis]) == 1


def _step(type_: TensorType, axis: int) -> int:
    """Bytes from an element to the next along the axis."""
    return type_.format.storage_bytes((1,) if type_.layout.channels_last else type_.shape[axis + 1 :])


def _read(name: str, arena: _Arena, graph: Graph, reader: str) -> None:
    if name not in graph.constants and name not in arena:
        raise InvalidArgument(f"memory plan: '{name}'", expected=f"intact when read {reader}", found="overwritten")


def _check_own_inputs(node: Node, places: dict[str, Span], graph: Graph) -> None:
    allowed = node.op.in_place_operands(graph.node_types(node))
    output, target = graph.types[node.output], places[node.output]
    for index, name in enumerate(node.inputs):
        if name in graph.constants:
            continue
        type_ = graph.types[name]
        is_alike = type_.layout == output.layout and type_.format.lies_as(output.format)
        fits = index in allowed and places[name] == target and is_alike
        if places[name].overlaps(target) and not fits:
            raise InvalidArgument(
                f"memory plan: '{node.output}'", expected=f"no overlap with its input '{name}'", found="overlap"
            )
