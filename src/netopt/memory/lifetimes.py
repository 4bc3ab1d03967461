"""When each value of a graph is alive, and which values can share their bytes."""

from __future__ import annotations

from dataclasses import dataclass

from netopt.graph.graph import Graph, Node
from netopt.numerics import ALIGNMENT, align_up
from netopt.ops import TensorType


@dataclass(frozen=True)
class Block:
    """Values that live in the same bytes, one after the other, as views of each other or as parts of one.

    Attributes:
        values: their names.
        bytes: size, a multiple of `ALIGNMENT`.
        first: time of the first write; graph inputs are written at time 0, node i runs at time i + 1.
        last: time of the last read; graph outputs are read after the last node.
        starts: the byte of the block at which each value begins; empty if all begin at 0.
    """

    values: tuple[str, ...]
    bytes: int
    first: int
    last: int
    starts: tuple[int, ...] = ()

    def offsets(self, offset: int) -> dict[str, int]:
        """The place of each value if the block lies at `offset`."""
        starts = self.starts or (0,) * len(self.values)
        return {name: offset + start for name, start in zip(self.values, starts, strict=True)}


def blocks_of(graph: Graph) -> list[Block]:
    """The blocks of all inputs and computed values, and of the scratch memory of the nodes that need some.

    A view joins the block of what it views; a concatenation in place joins the blocks of its parts. The output of an op
    that may work in place joins the block of an operand that nothing reads later.
    """
    sharing = _Sharing(graph)
    for time, node in enumerate(graph.nodes, 1):
        sharing.write(node, time)
    written = {node.output: time for time, node in enumerate(graph.nodes, 1)}
    blocks = [
        Block((scratch_name(node),), aligned(size), time, time)
        for time, node in enumerate(graph.nodes, 1)
        if (size := node.op.scratch_bytes(graph.node_types(node)))
    ]
    for members in sharing.members.values():
        lowest = min(sharing.start[name] for name in members)
        starts = tuple(sharing.start[name] - lowest for name in members)
        ends = (start + graph.types[name].span for name, start in zip(members, starts, strict=True))
        blocks.append(
            Block(
                tuple(members),
                aligned(max(ends)),
                min(written.get(name, 0) for name in members),
                max(sharing.last_read[name] for name in members),
                starts if any(starts) else (),
            )
        )
    return blocks


def scratch_name(node: Node) -> str:
    """What the plan calls the scratch memory of a node."""
    return f"{node.output} (scratch)"


def aligned(size: int) -> int:
    """`size` bytes rounded up to the alignment, and never 0, so that every value has a place of its own."""
    return max(ALIGNMENT, align_up(size))


def same_storage(one: TensorType, other: TensorType) -> bool:
    """Whether elements of one index lie at one place, so that one may be written over the other."""
    return one.layout == other.layout and one.format.lies_as(other.format)


def last_reads(graph: Graph) -> dict[str, int]:
    """The time of the last read of each value; of its write where nothing reads it."""
    times = dict.fromkeys(graph.inputs, 0)
    for time, node in enumerate(graph.nodes, 1):
        times[node.output] = time
        times.update(dict.fromkeys(node.inputs, time))
    times.update(dict.fromkeys(graph.outputs, len(graph.nodes) + 1))
    return times


def parts_of_views(graph: Graph) -> set[str]:
    """Values whose place is bound to that of others: the parts of concatenations in place."""
    return {
        name
        for node in graph.nodes
        if len(node.inputs) > 1 and node.op.is_view(graph.node_types(node), graph.types[node.output])
        for name in node.inputs
    }


class _Sharing:
    """Blocks under construction: `members` of each, and for each value its block and where it begins there.

    Of each block also what a value that would join it must know: the widest span and the last read of its members.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.last_read = last_reads(graph)
        self.parts = parts_of_views(graph)
        self.members: dict[int, list[str]] = {}
        self.block: dict[str, int] = {}
        self.start: dict[str, int] = {}
        self.widest: list[int] = []
        self.latest: list[int] = []
        for name in graph.inputs:
            self._add(name, self._new(), 0)

    def write(self, node: Node, time: int) -> None:
        """Give the node's output a block, its own or one to share."""
        types, output = self.graph.node_types(node), self.graph.types[node.output]
        if node.op.is_view(types, output):
            self._view(node, node.op.view_offsets(types, output))
            return
        operand = self._operand_to_replace(node, time)
        if operand is None:
            self._add(node.output, self._new(), 0)
        else:
            self._add(node.output, self.block[operand], self.start[operand])

    def _new(self) -> int:
        self.widest.append(0)
        self.latest.append(0)
        return len(self.widest) - 1

    def _add(self, name: str, block: int, start: int) -> None:
        self.members.setdefault(block, []).append(name)
        self.block[name], self.start[name] = block, start
        self.widest[block] = max(self.widest[block], self.graph.types[name].span)
        self.latest[block] = max(self.latest[block], self.last_read[name])

    def _view(self, node: Node, offsets: tuple[int, ...]) -> None:
        placed = [(name, at) for name, at in zip(node.inputs, offsets, strict=True) if name in self.block]
        if not placed:
            self._add(node.output, self._new(), 0)  # a view of a constant; the check refuses it
            return
        first, at = placed[0]
        self._add(node.output, self.block[first], self.start[first] - at)
        for name, at in placed[1:]:
            self._merge(self.block[first], name, self.start[node.output] + at)

    def _merge(self, block: int, name: str, start: int) -> None:
        """Let all of the block of `name` be part of `block`, with `name` at `start`."""
        if self.block[name] == block:
            return
        shift = start - self.start[name]
        for member in self.members.pop(self.block[name]):
            self._add(member, block, self.start[member] + shift)

    def _operand_to_replace(self, node: Node, time: int) -> str | None:
        """An operand whose bytes the node's output can take over, if any."""
        types, output = self.graph.node_types(node), self.graph.types[node.output]
        if output.layout.pitch or node.output in self.parts:
            return None  # its place is bound already
        in_place = [i for i in node.op.in_place_operands(types) if same_storage(types[i], output)]
        for operand in (node.inputs[i] for i in in_place):
            if operand not in self.block:
                continue
            block, start = self.block[operand], self.start[operand]
            # An operand that is read in another order than the output is written must not share the bytes.
            others = {i for i, name in enumerate(node.inputs) if self.block.get(name) == block}
            is_alone = all(i in in_place and self.start[node.inputs[i]] == start for i in others)
            # A block much larger than the output would live on for little.
            fits = self.widest[block] <= aligned(output.span)
            if is_alone and fits and self.latest[block] <= time:
                return operand
        return None
