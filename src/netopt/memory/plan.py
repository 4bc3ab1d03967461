"""Offsets for all blocks in one arena: as few bytes as the searches below find.

Finding the smallest arena is NP-hard. The planner places blocks first-fit in several orders that are known to do well
(by time, by size, by size x lifetime), then in shuffles of the best, and stops at the lower bound.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from netopt.graph.graph import Graph
from netopt.memory.chart import Timeline, draw, timeline_of
from netopt.memory.lifetimes import Block, blocks_of

_SHUFFLES = 200


@dataclass(frozen=True)
class MemoryPlan:
    """Where each value lives.

    Attributes:
        offsets: first byte in the arena of each input and computed value; a multiple of 64, but for images among the
            channels of a wider one.
        arena_bytes: size of the arena: the last byte that any value uses, and no more.
        lower_bound: bytes; no placement of these blocks can be smaller than the largest sum of live blocks.
        timeline: when what stays where; follows from the graph and the offsets, and is what the chart shows.
    """

    offsets: Mapping[str, int]
    arena_bytes: int
    lower_bound: int
    timeline: Timeline = field(default_factory=Timeline, compare=False, repr=False)

    def chart(self) -> str:
        """The plan as text in 100 columns: time across, offset up; and the step and the values that set the peak."""
        return draw(self.timeline, self.arena_bytes, self.lower_bound)

    def __str__(self) -> str:
        return self.chart()


def plan_memory(graph: Graph) -> MemoryPlan:
    """Place all values of the graph in one arena."""
    blocks = blocks_of(graph)
    offsets = place(blocks)
    places = dict(pair for block, at in zip(blocks, offsets, strict=True) for pair in block.offsets(at).items())
    return MemoryPlan(
        offsets=places,
        arena_bytes=_end(blocks, offsets),
        lower_bound=lower_bound(blocks),
        timeline=timeline_of(graph, places),
    )


def lower_bound(blocks: Sequence[Block]) -> int:
    """The largest sum, over time, of the bytes of the blocks alive then."""
    times = {block.first for block in blocks}
    return max((sum(b.bytes for b in blocks if b.first <= time <= b.last) for time in times), default=0)


def place(blocks: Sequence[Block]) -> list[int]:
    """An offset for each block, such that blocks alive at the same time do not overlap."""
    bound = lower_bound(blocks)
    orders: list[Callable[[int], tuple[int, ...]]] = [
        lambda i: (blocks[i].first, i),
        lambda i: (-blocks[i].bytes, i),
        lambda i: (-blocks[i].bytes * (blocks[i].last - blocks[i].first + 1), i),
        lambda i: (blocks[i].first - blocks[i].last, i),
    ]
    best_order: list[int] = []
    best: list[int] = []
    for key in orders:
        order = sorted(range(len(blocks)), key=key)
        offsets = first_fit(blocks, order)
        if not best or _end(blocks, offsets) < _end(blocks, best):
            best_order, best = order, offsets
    generator = random.Random(0)
    for _ in range(_SHUFFLES):
        if _end(blocks, best) == bound:
            break
        order = best_order.copy()
        i, j = generator.randrange(len(order)), generator.randrange(len(order))
        order.insert(j, order.pop(i))
        offsets = first_fit(blocks, order)
        if _end(blocks, offsets) <= _end(blocks, best):
            best_order, best = order, offsets
    return best


def first_fit(blocks: Sequence[Block], order: Iterable[int]) -> list[int]:
    """Place the blocks in `order`, each at the lowest offset where it meets no placed block alive with it."""
    offsets = [0] * len(blocks)
    placed: list[int] = []
    for index in order:
        block = blocks[index]
        rivals = sorted(
            (offsets[i], offsets[i] + blocks[i].bytes)
            for i in placed
            if blocks[i].first <= block.last and block.first <= blocks[i].last
        )
        offset = 0
        for start, end in rivals:
            if offset + block.bytes <= start:
                break
            offset = max(offset, end)
        offsets[index] = offset
        placed.append(index)
    return offsets


def _end(blocks: Sequence[Block], offsets: Sequence[int]) -> int:
    return max((offset + block.bytes for block, offset in zip(blocks, offsets, strict=True)), default=0)
