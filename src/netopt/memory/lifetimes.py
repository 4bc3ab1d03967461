"""When each value of a graph is alive, and which values can share their bytes."""

from __future__ import annotations

from dataclasses import dataclass

from netopt.graph.graph import Graph, Node
from netopt.numerics import ALIGNMENT


@dataclass(frozen=True)
class Block:
    """Values that live in the same bytes, one after the other or as views of each other.

    Attributes:
        values: their names.
        bytes: size, a multiple of `ALIGNMENT`.
        first: time of the first write; graph inputs are written at time 0, node i runs at time i + 1.
        last: time of the last read; graph outputs are read after the last node.
    """

    values: tuple[str, ...]
    bytes: int
    first: int
    last: int


def blocks_of(graph: Graph) -> list[Block]:
    """The blocks of all inputs and computed values, and of the scratch memory of the nodes that need some.

    A view joins the block of what it views. The output of an op that may work in place joins the block of an operand
    that nothing reads later.
    """
    last_read = _last_reads(graph)
    block_of: dict[str, int] = {}
    values: list[list[str]] = []
    for name in graph.inputs:
        block_of[name] = len(values)
        values.append([name])
    for time, node in enumerate(graph.nodes, 1):
        index = _shared_block(graph, node, time, block_of, values, last_read)
        if index is None:
            index = len(values)
            values.append([])
        block_of[node.output] = index
        values[index].append(node.output)
    written = {node.output: time for time, node in enumerate(graph.nodes, 1)}
    scratch = [
        Block((scratch_name(node),), aligned(size), time, time)
        for time, node in enumerate(graph.nodes, 1)
        if (size := node.op.scratch_bytes(graph.node_types(node)))
    ]
    return scratch + [
        Block(
            tuple(names),
            max(aligned(graph.types[name].bytes) for name in names),
            min(written.get(name, 0) for name in names),
            max(last_read[name] for name in names),
        )
        for names in values
    ]


def scratch_name(node: Node) -> str:
    """What the plan calls the scratch memory of a node."""
    return f"{node.output} (scratch)"


def aligned(size: int) -> int:
    """`size` bytes rounded up to the alignment, and never 0, so that every value has a place of its own."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


def _last_reads(graph: Graph) -> dict[str, int]:
    times = dict.fromkeys(graph.inputs, 0)
    for time, node in enumerate(graph.nodes, 1):
        times[node.output] = time
        times.update(dict.fromkeys(node.inputs, time))
    times.update(dict.fromkeys(graph.outputs, len(graph.nodes) + 1))
    return times


def _shared_block(
    graph: Graph, node: Node, time: int, block_of: dict[str, int], values: list[list[str]], last_read: dict[str, int]
) -> int | None:
    """The block that the node's output can join, if any."""
    types, output = graph.node_types(node), graph.types[node.output]
    if node.op.is_view(types, output):
        return block_of.get(node.inputs[0])
    in_place = [i for i in node.op.in_place_operands(types) if types[i].layout == output.layout]
    for operand in in_place:
        index = block_of.get(node.inputs[operand])
        if index is None:
            continue
        # An operand that is read in another order than the output is written must not share the bytes.
        others = {i for i, name in enumerate(node.inputs) if block_of.get(name) == index}
        if others <= set(in_place) and all(last_read[name] <= time for name in values[index]):
            return index
    return None
