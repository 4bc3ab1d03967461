"""Regions: on any graph they are whole, in order, and no larger than they must be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.graph.regions import partition

Reads = dict[int, list[int]]


def _ancestors(reads: Reads, node: int) -> set[int]:
    found: set[int] = set()
    open_ = list(reads[node])
    while open_:
        source = open_.pop()
        if source not in found:
            found.add(source)
            open_ += reads[source]
    return found


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Reads, set[int], set[tuple[int, int]]]:
    """A graph of up to 12 nodes, those that are not lowered, and edges from one of them to another that are tied."""
    size = draw(st.integers(1, 12))
    reads = {node: sorted(draw(st.sets(st.integers(0, node - 1), max_size=3))) if node else [] for node in range(size)}
    unlowered = draw(st.sets(st.integers(0, size - 1)))
    inside = [(s, n) for n in reads for s in reads[n] if s in unlowered and n in unlowered]
    return reads, unlowered, set(draw(st.lists(st.sampled_from(inside)))) if inside else set()


@given(graph=graphs())
@settings(derandomize=True, max_examples=400, deadline=None)
def test_partition(graph: tuple[Reads, set[int], set[tuple[int, int]]]) -> None:
    reads, unlowered, tied = graph
    groups = partition(list(reads), reads, unlowered, tied)
    assert sorted(node for group in groups for node in group) == list(reads)
    done: set[int] = set()
    for group in groups:
        assert list(group) == sorted(group)
        assert all(source in done | set(group) for node in group for source in reads[node])
        done |= set(group)
    number = {node: index for index, group in enumerate(groups) for node in group}
    assert all(number[a] == number[b] for a, b in tied)
    for group in groups:
        if unlowered.isdisjoint(group):
            assert len(group) == 1
            continue
        for node in set(group) - unlowered:
            # A node that could be lowered is inside because the region both feeds it and reads it, through whatever.
            others = set(group) - {node}
            assert _ancestors(reads, node) & others
            assert any(node in _ancestors(reads, other) for other in others)
    for node in reads:
        for source in reads[node]:
            a, b = number[source], number[node]
            if a != b and {source, node} <= unlowered:
                # They are apart only because something runs in between: joined, there would be a cycle.
                between = set(reads) - set(groups[a]) - set(groups[b])
                starts = {n for n in between if set(reads[n]) & set(groups[a])}
                ways = starts | {n for n in between if (_ancestors(reads, n) & starts)}
                assert any(source in ways for n in groups[b] for source in reads[n])


@pytest.mark.parametrize(
    ("reads", "unlowered", "tied", "expected"),
    [
        ({0: [], 1: [0], 2: [1]}, set(), [], [(0,), (1,), (2,)]),
        ({0: [], 1: [0], 2: [1]}, {0, 1}, [], [(0, 1), (2,)]),
        # 0 -> 1 -> 2 where 1 can be lowered: two regions around it, or one where 0 and 2 are tied.
        ({0: [], 1: [0], 2: [0, 1]}, {0, 2}, [], [(0,), (1,), (2,)]),
        ({0: [], 1: [0], 2: [0, 1]}, {0, 2}, [(0, 2)], [(0, 1, 2)]),
        # Two regions that would each read from the other.
        ({0: [], 1: [], 2: [0], 3: [1], 4: [1, 2], 5: [0, 3]}, {0, 1, 4, 5}, [(0, 5), (1, 4)], [(0, 1, 2, 3, 4, 5)]),
        # Not connected: two regions.
        ({0: [], 1: [], 2: [0, 1]}, {0, 1}, [], [(0,), (1,), (2,)]),
        # Tied nodes that can all be lowered stay together, in place of being a region.
        ({0: [], 1: [0], 2: [0], 3: [1, 2]}, set(), [(0, 1), (0, 2)], [(0, 1, 2), (3,)]),
    ],
)
def test_small_graphs(
    reads: Reads, unlowered: set[int], tied: list[tuple[int, int]], expected: list[tuple[int, ...]]
) -> None:
    assert partition(list(reads), reads, unlowered, tied) == expected


def test_a_long_chain_is_one_region() -> None:
    """No recursion: a network may have thousands of nodes."""
    size = 1500
    reads: Reads = {node: [node - 1] if node else [] for node in range(size)}
    assert partition(list(reads), reads, set(range(100, 160)), []) == [
        *((n,) for n in range(100)),
        tuple(range(100, 160)),
        *((n,) for n in range(160, size)),
    ]
