"""Which nodes of a graph run together at one point, where some cannot be lowered."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def partition(
    nodes: Sequence[T],
    reads: Mapping[T, Collection[T]],
    unlowered: Collection[T],
    inseparable: Collection[tuple[T, T]],
) -> list[tuple[T, ...]]:
    """Group the nodes that cannot be lowered into regions, as large as they can be while each runs at one point.

    A region takes in a node that can be lowered only where it must: where that node reads from the region and the
    region reads from it.

    Args:
        nodes: in an order of execution.
        reads: the nodes whose results each node reads.
        unlowered: the nodes that cannot be lowered.
        inseparable: pairs (producer, reader) of nodes that must be in one group.

    Returns:
        Groups in an order of execution that keeps to that of `nodes` where it can: the regions, and those of other
        nodes: one, or several that are inseparable. Nodes within a group are in the order of `nodes`.
    """
    group = {node: index for index, node in enumerate(nodes)}
    for first, second in inseparable:
        _merge(group, {group[first], group[second]})
    for cycle in _cycles(nodes, reads, group):
        _merge(group, cycle)
    regions = {group[node] for node in unlowered}
    for node in nodes:
        for source in sorted(reads[node], key=lambda source: group[source]):
            a, b = group[source], group[node]
            if a != b and a in regions and b in regions and not _joined_elsewhere(a, b, nodes, reads, group):
                _merge(group, {a, b})
    return _in_order(nodes, reads, group)


def _merge(group: dict[T, int], numbers: Collection[int]) -> None:
    """Give several groups one number: the smallest, so that the number of a region that grows stays one of its own."""
    number = min(numbers)
    for node, own in group.items():
        if own in numbers:
            group[node] = number


def _edges(nodes: Sequence[T], reads: Mapping[T, Collection[T]], group: Mapping[T, int]) -> dict[int, set[int]]:
    """The groups that read from each group."""
    edges: dict[int, set[int]] = {group[node]: set() for node in nodes}
    for node in nodes:
        for source in reads[node]:
            if group[source] != group[node]:
                edges[group[source]].add(group[node])
    return edges


def _cycles(nodes: Sequence[T], reads: Mapping[T, Collection[T]], group: Mapping[T, int]) -> list[set[int]]:
    """Groups that read from each other, directly or not: the strongly connected components of more than one.

    Source: Kosaraju's algorithm, as in Aho, Hopcroft, Ullman, Data Structures and Algorithms, 6.7.
    """
    edges = _edges(nodes, reads, group)
    back: dict[int, set[int]] = {number: set() for number in edges}
    for number, readers in edges.items():
        for reader in readers:
            back[reader].add(number)
    finished: list[int] = []
    seen: set[int] = set()
    for number in edges:
        finished += _finished_after(number, edges, seen)
    seen.clear()
    components = [set(_finished_after(number, back, seen)) for number in reversed(finished)]
    return [component for component in components if len(component) > 1]


def _finished_after(start: int, edges: Mapping[int, set[int]], seen: set[int]) -> list[int]:
    """What a depth-first search from `start` reaches and has not seen, in the order in which it is done with it."""
    if start in seen:
        return []
    seen.add(start)
    finished: list[int] = []
    path = [(start, iter(edges[start]))]
    while path:
        number, readers = path[-1]
        following = next((reader for reader in readers if reader not in seen), None)
        if following is None:
            finished.append(number)
            path.pop()
        else:
            seen.add(following)
            path.append((following, iter(edges[following])))
    return finished


def _joined_elsewhere(
    a: int, b: int, nodes: Sequence[T], reads: Mapping[T, Collection[T]], group: Mapping[T, int]
) -> bool:
    """Whether there is a way from group a to group b through others: then the two cannot run at one point."""
    edges = _edges(nodes, reads, group)
    seen: set[int] = {b}
    return any(b in edges[number] for start in edges[a] for number in _finished_after(start, edges, seen))


def _in_order(nodes: Sequence[T], reads: Mapping[T, Collection[T]], group: Mapping[T, int]) -> list[tuple[T, ...]]:
    """The groups, each after those that it reads from, and otherwise by the place of their last node."""
    members: dict[int, list[T]] = {}
    place: dict[int, int] = {}
    for index, node in enumerate(nodes):
        members.setdefault(group[node], []).append(node)
        place[group[node]] = index
    edges = _edges(nodes, reads, group)
    waiting = dict.fromkeys(members, 0)
    for readers in edges.values():
        for reader in readers:
            waiting[reader] += 1
    ready = [(place[number], number) for number, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    order: list[tuple[T, ...]] = []
    while ready:
        _, number = heapq.heappop(ready)
        order.append(tuple(members[number]))
        for reader in edges[number]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, (place[reader], reader))
    return order
