"""Proof of a memory plan, by running the graph on names instead of numbers.

Shares no code with the planner: it knows nothing of lifetimes or blocks. It keeps a picture of the arena (which value's
content each byte range holds), lets every node write its output into it, and demands that whatever a node or the caller
reads is still there in full.
"""

from __future__ import annotations

from netopt.errors import InvalidArgument
from netopt.graph.graph import Graph, Node
from netopt.memory.plan import MemoryPlan

Range = tuple[int, int]


def check_plan(graph: Graph, plan: MemoryPlan) -> None:
    """Raise unless the plan keeps every value intact until its last read.

    Raises:
        InvalidArgument: a value has no place, is misaligned, leaves the arena, is overwritten before its last read, or
            is written over an input of the same node where the op does not allow that; or the arena is larger than
            needed.
    """
    places = {name: _place(plan, name, size) for name, size in _sizes(graph).items()}
    if set(plan.offsets) != set(places):
        raise InvalidArgument("memory plan", expected=f"offsets for {sorted(places)}", found=sorted(plan.offsets))
    used = max((end for _, end in places.values()), default=0)
    if not used <= plan.arena_bytes < used + 64 + 1 or plan.arena_bytes < plan.lower_bound:
        raise InvalidArgument("memory plan: arena", expected=f"{used} bytes, rounded up to 64", found=plan.arena_bytes)
    arena: dict[str, Range] = {}
    for name in graph.inputs:
        _write(name, places[name], arena)
    for node in graph.nodes:
        _run(node, graph, places, arena)
    for name in graph.outputs:
        _read(name, arena, graph, "by the caller")


def _sizes(graph: Graph) -> dict[str, int]:
    """Bytes of all that needs a place: inputs, computed values, scratch memory."""
    sizes = {name: type_.bytes for name, type_ in graph.types.items() if name not in graph.constants}
    for node in graph.nodes:
        if size := node.op.scratch_bytes(graph.node_types(node)):
            sizes[_scratch(node)] = size
    return sizes


def _run(node: Node, graph: Graph, places: dict[str, Range], arena: dict[str, Range]) -> None:
    for name in node.inputs:
        _read(name, arena, graph, f"by '{node.output}'")
    if node.op.is_view(graph.node_types(node), graph.types[node.output]):
        if places.get(node.inputs[0]) != places[node.output]:
            raise InvalidArgument(f"memory plan: '{node.output}'", expected=f"the place of '{node.inputs[0]}'")
        arena[node.output] = places[node.output]
        return
    if _scratch(node) in places:
        _write(_scratch(node), places[_scratch(node)], arena)
        for name in node.inputs:
            _read(name, arena, graph, f"by '{node.output}' beside its scratch memory")
        _check_scratch(node, places)
    _check_own_inputs(node, places, graph)
    _write(node.output, places[node.output], arena)


def _scratch(node: Node) -> str:
    return f"{node.output} (scratch)"


def _check_scratch(node: Node, places: dict[str, Range]) -> None:
    if _overlap(places[_scratch(node)], places[node.output]):
        raise InvalidArgument(
            f"memory plan: '{_scratch(node)}'", expected=f"no overlap with '{node.output}'", found="overlap"
        )


def _place(plan: MemoryPlan, name: str, size: int) -> Range:
    start = plan.offsets.get(name, -1)
    end = start + size
    if start < 0 or start % 64 or end > plan.arena_bytes:
        raise InvalidArgument(
            f"memory plan: place of '{name}'",
            expected=f"a multiple of 64 from 0, up to {plan.arena_bytes}",
            found=f"{start} to {end}",
        )
    return start, end


def _overlap(a: Range, b: Range) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _write(name: str, place: Range, arena: dict[str, Range]) -> None:
    for other in [other for other, range_ in arena.items() if _overlap(range_, place)]:
        del arena[other]
    arena[name] = place


def _read(name: str, arena: dict[str, Range], graph: Graph, reader: str) -> None:
    if name not in graph.constants and name not in arena:
        raise InvalidArgument(f"memory plan: '{name}'", expected=f"intact when read {reader}", found="overwritten")


def _check_own_inputs(node: Node, places: dict[str, Range], graph: Graph) -> None:
    allowed = node.op.in_place_operands(graph.node_types(node))
    layout, target = graph.types[node.output].layout, places[node.output]
    for index, name in enumerate(node.inputs):
        if name in graph.constants:
            continue
        fits = index in allowed and places[name] == target and graph.types[name].layout == layout
        if _overlap(places[name], target) and not fits:
            raise InvalidArgument(
                f"memory plan: '{node.output}'", expected=f"no overlap with its input '{name}'", found="overlap"
            )
