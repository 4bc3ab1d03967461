"""The order of execution: independent nodes are put so that few bytes are alive at one time.

The graph is cut where all nodes before a node lead to it and all after it come from it. Between two cuts the order is
chosen anew, if the given one sets the peak: the best, by a search over the sets of nodes that may have run (a shortest
path by its largest sum), as long as there are few of them; else by running next what leaves the fewest bytes alive.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from netopt.graph.graph import Graph, Node
from netopt.memory.lifetimes import aligned, blocks_of, parts_of_views, same_storage
from netopt.memory.plan import lower_bound, plan_memory

# Sets of nodes that the exact search looks at in one part of a graph.
_MOST_SETS = 4_000


def order_for_memory(graph: Graph) -> Graph:
    """The graph with its nodes in an order that needs a smaller arena, or as it is if none is found."""
    live = _Live(graph)
    parts = _between_cuts(live)
    unavoidable = 0
    for number, part in sorted(enumerate(parts), key=lambda pair: -live.peak(pair[1])):
        if live.peak(part) <= unavoidable:
            break  # this part, and those after it, set no peak
        order = _best_order(live, part)
        if live.peak(order) < live.peak(part):
            parts[number] = order
        unavoidable = max(unavoidable, live.peak(parts[number]))
    nodes = [graph.nodes[index] for part in parts for index in part]
    ordered = Graph(graph.inputs, graph.outputs, tuple(nodes), graph.types, graph.constants)
    if lower_bound(blocks_of(ordered)) >= lower_bound(blocks_of(graph)):
        return graph
    return ordered if plan_memory(ordered).arena_bytes < plan_memory(graph).arena_bytes else graph


@dataclass(frozen=True)
class _Group:
    """Values in the same bytes as views or parts of each other.

    Attributes:
        bytes: what they take together.
        writers: nodes that write them, as a set of bits; 0 for an input of the graph.
        users: nodes that read or write them, as a set of bits.
        stays: it is read after the last node.
        is_input: it is alive before the first node.
    """

    bytes: int
    writers: int
    users: int
    stays: bool
    is_input: bool


class _Live:
    """How many bytes are alive when a set of nodes, given as bits, has run."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.before = self._dependencies()
        self.group_of = self._join_views()
        self.groups = self._describe()
        bound = parts_of_views(graph)
        self.scratch = [aligned(n) if n else 0 for n in (_scratch_bytes(graph, node) for node in graph.nodes)]
        self.may_replace: list[tuple[int, ...]] = []
        self.touches: list[tuple[int, ...]] = []
        for node in graph.nodes:
            types, output = graph.node_types(node), graph.types[node.output]
            names = [name for name in (*node.inputs, node.output) if name in self.group_of]
            self.touches.append(tuple(dict.fromkeys(self.group_of[name] for name in names)))
            in_place = [] if output.layout.pitch or node.output in bound else node.op.in_place_operands(types)
            operands = [i for i in in_place if same_storage(types[i], output) and node.inputs[i] in self.group_of]
            groups = []
            for i in operands:
                group = self.group_of[node.inputs[i]]
                same = {j for j, name in enumerate(node.inputs) if self.group_of.get(name) == group}
                if same <= set(operands) and self.groups[group].bytes <= aligned(output.span):
                    groups.append(group)
            self.may_replace.append(tuple(groups))

    def step(self, done: int, node: int, alive: int) -> tuple[int, int]:
        """The bytes alive while `node` runs after the set `done`, and after it, if `alive` are before it."""
        after = done | 1 << node
        own = self.group_of[self.graph.nodes[node].output]
        group = self.groups[own]
        new = 0 if group.is_input or group.writers & done else group.bytes
        freed = [i for i in self.touches[node] if not self.groups[i].stays and not self.groups[i].users & ~after]
        taken = bool(new) and any(i in freed for i in self.may_replace[node])
        during = alive + (0 if taken else new) + self.scratch[node]
        return during, alive + new - sum(self.groups[i].bytes for i in freed)

    def peak(self, order: Sequence[int]) -> int:
        """The most bytes alive while these nodes run in this order after all that come before them in the graph."""
        done, alive = self.state_before(order)
        most = alive
        for node in order:
            during, alive = self.step(done, node, alive)
            done, most = done | 1 << node, max(most, during)
        return most

    def state_before(self, part: Sequence[int]) -> tuple[int, int]:
        """The nodes before a part of the graph, as a set, and the bytes alive when they have run."""
        first = min(part)
        done = (1 << first) - 1
        alive = sum(
            group.bytes
            for group in self.groups
            if ((group.is_input and (group.users or group.stays)) or group.writers & done)
            and (group.stays or group.users & ~done)
        )
        return done, alive

    def _dependencies(self) -> list[int]:
        index = {node.output: number for number, node in enumerate(self.graph.nodes)}
        result = []
        for node in self.graph.nodes:
            result.append(sum(1 << number for number in {index[name] for name in node.inputs if name in index}))
        return result

    def _join_views(self) -> dict[str, int]:
        """A number for each computed value and input; views, and what they view, have one."""
        graph = self.graph
        number = {name: i for i, name in enumerate((*graph.inputs, *(node.output for node in graph.nodes)))}
        for node in graph.nodes:
            if not node.op.is_view(graph.node_types(node), graph.types[node.output]):
                continue
            for name in node.inputs:
                if name in number:
                    old, new = number[node.output], number[name]
                    number = {key: new if value == old else value for key, value in number.items()}
        dense = {value: i for i, value in enumerate(dict.fromkeys(number.values()))}
        return {name: dense[value] for name, value in number.items()}

    def _describe(self) -> list[_Group]:
        graph = self.graph
        count = max(self.group_of.values(), default=-1) + 1
        writers, users, size = [0] * count, [0] * count, [0] * count
        for number, node in enumerate(graph.nodes):
            writers[self.group_of[node.output]] |= 1 << number
            for name in (*node.inputs, node.output):
                if name in self.group_of:
                    users[self.group_of[name]] |= 1 << number
        for name, group in self.group_of.items():
            size[group] = max(size[group], aligned(graph.types[name].span))
        stays = {self.group_of[name] for name in graph.outputs if name in self.group_of}
        inputs = {self.group_of[name] for name in graph.inputs}
        return [_Group(size[i], writers[i], users[i], i in stays, i in inputs) for i in range(count)]


def _scratch_bytes(graph: Graph, node: Node) -> int:
    return node.op.scratch_bytes(graph.node_types(node))


def _between_cuts(live: _Live) -> list[list[int]]:
    """The nodes in parts: each node of a part may run only after all of the parts before it."""
    count = len(live.before)
    ancestors: list[int] = []
    for number in range(count):
        bits = live.before[number]
        for other in range(number):
            if live.before[number] >> other & 1:
                bits |= ancestors[other]
        ancestors.append(bits)
    parts: list[list[int]] = [[]]
    for number in range(count):
        is_last = ancestors[number] == (1 << number) - 1
        is_first = all(ancestors[later] >> number & 1 for later in range(number + 1, count))
        if is_last and is_first:
            parts += [[number], []]
        else:
            parts[-1].append(number)
    return [part for part in parts if part]


def _best_order(live: _Live, part: list[int]) -> list[int]:
    """The order of a part with the lowest peak that is found."""
    if len(part) < 2:
        return part
    return _search(live, part) or _greedy(live, part)


def _ready(live: _Live, part: Sequence[int], done: int) -> list[int]:
    return [number for number in part if not done >> number & 1 and not live.before[number] & ~done]


def _search(live: _Live, part: list[int]) -> list[int] | None:
    """The order with the lowest peak, or None if too many sets of nodes would have to be looked at."""
    done, alive = live.state_before(part)
    everything = done | sum(1 << number for number in part)
    heap: list[tuple[int, int, int, int]] = [(alive, 0, done, alive)]
    best = {done: alive}
    came_from: dict[int, tuple[int, int]] = {}
    settled: set[int] = set()
    while heap:
        most, negative_count, done, alive = heapq.heappop(heap)
        if done in settled:
            continue
        settled.add(done)
        if done == everything:
            break
        if len(settled) > _MOST_SETS:
            return None
        for number in _ready(live, part, done):
            during, after = live.step(done, number, alive)
            following, peak = done | 1 << number, max(most, during)
            if peak < best.get(following, peak + 1):
                best[following] = peak
                came_from[following] = done, number
                heapq.heappush(heap, (peak, negative_count - 1, following, after))
    order = []
    while done in came_from:
        done, number = came_from[done]
        order.append(number)
    return order[::-1]


def _greedy(live: _Live, part: list[int]) -> list[int]:
    """Run next what leaves the fewest bytes alive, of equals what needs the fewest while it runs."""
    done, alive = live.state_before(part)
    order: list[int] = []
    while len(order) < len(part):
        steps = {number: live.step(done, number, alive) for number in _ready(live, part, done)}
        number = min(steps, key=lambda number: (steps[number][1], steps[number][0], number))
        order.append(number)
        done, alive = done | 1 << number, steps[number][1]
    return order
