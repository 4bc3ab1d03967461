"""Which concatenations copy, because they would cost memory in place.

The whole takes its bytes when its first part is written. Where an early value is joined with a late one, as in a U-Net,
the arena can be smaller with a copy.
"""

from __future__ import annotations

from netopt.graph.graph import Graph
from netopt.graph.passes.write_concat_in_place import concats_in_place
from netopt.memory.lifetimes import blocks_of
from netopt.memory.order import order_for_memory
from netopt.memory.plan import plan_memory
from netopt.ops import Concat

# A copy costs time, so it must save more than this share of the arena.
_LEAST_SAVING = 0.02


def copies_for_memory(graph: Graph) -> frozenset[str]:
    """The concatenations that make the arena clearly smaller if they copy, for `write_concat_in_place`.

    Those that are alive at the peak are tried, one after the other, as long as one saves enough.
    """
    best, copied = concats_in_place(graph), frozenset[str]()
    if best is graph or not _is_smaller(graph, best):
        return copied
    while names := _at_the_peak(best):
        others = {name: concats_in_place(graph, copied | {name}) for name in names}
        name = min(names, key=lambda name: _arena_bytes(others[name]))
        if not _is_smaller(others[name], best):
            break
        best, copied = others[name], copied | {name}
    return copied


def _is_smaller(graph: Graph, other: Graph) -> bool:
    return _arena_bytes(graph) < (1 - _LEAST_SAVING) * _arena_bytes(other)


def _arena_bytes(graph: Graph) -> int:
    return plan_memory(order_for_memory(graph)).arena_bytes


def _at_the_peak(graph: Graph) -> list[str]:
    """The concatenations in place whose bytes are in use when the most are."""
    blocks = blocks_of(order_for_memory(graph))
    alive = [[b for b in blocks if b.first <= time <= b.last] for time in {b.first for b in blocks}]
    peak = max(alive, key=lambda each: sum(b.bytes for b in each), default=[])
    names = {name for block in peak for name in block.values}
    return [
        node.output for node in graph.nodes if isinstance(node.op, Concat) and node.op.in_place and node.output in names
    ]
