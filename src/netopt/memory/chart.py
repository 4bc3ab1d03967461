"""A memory plan as text: time across, offset up, and what sets the peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from netopt.console import count
from netopt.graph.graph import Graph
from netopt.memory.lifetimes import blocks_of

_WIDTH = 100
_MOST_COLUMNS = 48


@dataclass(frozen=True)
class Stay:
    """Bytes of the arena that are taken for a while.

    Attributes:
        values: the names of those that lie there, in the order in which they are written.
        offset: first byte.
        bytes: size, a multiple of 64.
        first: time of the first write; inputs are written at time 0, node i runs at time i + 1.
        last: time of the last read; outputs are read after the last node.
    """

    values: tuple[str, ...]
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Timeline:
    """What stays where, and when.

    Attributes:
        stays: in the order of their offsets.
        steps: what happens at each time: the inputs are written, each node runs, the outputs are read.
    """

    stays: tuple[Stay, ...] = ()
    steps: tuple[str, ...] = ()

    def alive(self, time: int) -> list[Stay]:
        """What takes bytes at this time, the largest first."""
        return sorted((s for s in self.stays if s.first <= time <= s.last), key=lambda s: (-s.bytes, s.offset))

    def peak(self) -> int:
        """The first time at which the most bytes are taken."""
        return max(range(len(self.steps)), key=lambda time: sum(stay.bytes for stay in self.alive(time)), default=0)


def timeline_of(graph: Graph, offsets: Mapping[str, int]) -> Timeline:
    """The timeline of a plan that has passed its check."""
    stays = []
    for block in blocks_of(graph):
        # A plan from elsewhere may have put the block's values apart.
        by_base: dict[int, list[str]] = {}
        for name, start in block.offsets(0).items():
            by_base.setdefault(offsets[name] - start, []).append(name)
        stays += [Stay(tuple(names), at, block.bytes, block.first, block.last) for at, names in by_base.items()]
    steps = [f"{node.op.label}, {node.layer}" if node.layer else node.op.label for node in graph.nodes]
    order = sorted(stays, key=lambda stay: (stay.offset, stay.first))
    return Timeline(tuple(order), ("the inputs are written", *steps, "the outputs are read"))


def draw(timeline: Timeline, arena_bytes: int, lower_bound: int) -> str:
    """The chart: a row for each block, the highest offset first; a column for one step or a few."""
    totals = f"arena {count(arena_bytes)} bytes, lower bound {count(lower_bound)} bytes"
    if not timeline.stays:
        return totals
    steps, peak = len(timeline.steps), timeline.peak()
    each = -(-steps // _MOST_COLUMNS)
    columns = [range(start, min(start + each, steps)) for start in range(0, steps, each)]
    ruler = "".join("v" if peak in times else " " for times in columns)
    scale = f"a column is {each} steps" if each > 1 else "a column is a step"
    lines = [f"{totals}; {scale}, v the peak", f"{'offset':>12} |{ruler}| {'bytes':>12}  values"]
    for stay in reversed(timeline.stays):
        bar = "".join("#" if stay.first <= times[-1] and times[0] <= stay.last else "." for times in columns)
        line = f"{count(stay.offset):>12} |{bar}| {count(stay.bytes):>12}  {', '.join(stay.values)}"
        lines.append(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}...")
    return "\n".join([*lines, *_peak_lines(timeline, peak)])


def _peak_lines(timeline: Timeline, peak: int) -> Sequence[str]:
    """The moment of the peak, and what is alive then."""
    alive = timeline.alive(peak)
    total = sum(stay.bytes for stay in alive)
    lines = [f"peak {count(total)} bytes at step {peak} ({timeline.steps[peak]}):"]
    for stay in alive:
        names = ", ".join(stay.values)
        room = _WIDTH - 18
        lines.append(f"{count(stay.bytes):>16}  {names if len(names) <= room else names[: room - 3] + '...'}")
    return lines
