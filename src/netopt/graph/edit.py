"""A graph that is changed node by node: readers, writers and names are kept up to date, so that a pass is one walk.

Making a new graph for each change takes time that grows with the square of the number of changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.numerics import FLOAT32, NumberFormat
from netopt.ops import Op, TensorType


class GraphEditor:
    """A graph under change; `finish` gives the result. Nodes have places, those of the graph that was given.

    What nothing uses any more is dropped at once, and its name is free for others.
    """

    def __init__(self, graph: Graph) -> None:
        self._builder = GraphBuilder(graph)
        self._nodes = graph.producers()
        self._outputs_at = [[node.output] for node in graph.nodes]
        self._place = {node.output: place for place, node in enumerate(graph.nodes)}
        self._readers = {name: [user.output for user in users] for name, users in graph.users().items()}

    @property
    def types(self) -> dict[str, TensorType]:
        """The type of every value."""
        return self._builder.types

    @property
    def constants(self) -> dict[str, torch.Tensor]:
        """Values known when lowering."""
        return self._builder.constants

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values that the caller gets."""
        return self._builder.outputs

    @property
    def places(self) -> int:
        """How many places there are: the nodes of the graph that was given."""
        return len(self._outputs_at)

    def place(self, node: Node) -> int:
        """Where the node stands."""
        return self._place[node.output]

    def at(self, place: int) -> tuple[Node, ...]:
        """The nodes that stand at a place, as they are now: what was put before a node stands there, too."""
        return tuple(self._nodes[name] for name in self._outputs_at[place])

    def walk(self) -> Iterator[Node]:
        """All nodes in order, each as it is when its turn comes."""
        for place in range(self.places):
            yield from self.at(place)

    def producer(self, value: str) -> Node | None:
        """The node that writes a value, if one does."""
        return self._nodes.get(value)

    def users(self, value: str) -> list[Node]:
        """The nodes that read a value, in order; a node that reads it twice stands there twice."""
        return [self._nodes[name] for name in sorted(self._readers[value], key=self._order)]

    def only_user(self, value: str) -> Node | None:
        """The node that reads the value, if it is the only one and the value is no output."""
        readers = self._readers[value]
        return self._nodes[readers[0]] if len(readers) == 1 and value not in self.outputs else None

    def node_types(self, node: Node) -> tuple[TensorType, ...]:
        """The types of the node's inputs."""
        return tuple(self.types[name] for name in node.inputs)

    def add_constant(self, wish: str, value: torch.Tensor, format_: NumberFormat = FLOAT32) -> str:
        """Add a constant, for a node to read, and return its name."""
        name = self._builder.add_constant(wish, value, format_)
        self._readers[name] = []
        return name

    def insert_before(self, node: Node, op: Op, inputs: tuple[str, ...], wish: str) -> str:
        """Put a node with a new output value before another one, of the same layer, and return that value's name."""
        name = self._builder.add_node(op, inputs, wish, node.layer)
        self._nodes[name] = self._builder.nodes.pop()
        self._readers[name] = []
        place = self._place[name] = self._place[node.output]
        here = self._outputs_at[place]
        here.insert(here.index(node.output), name)
        self._read(name, inputs)
        return name

    def replace(self, node: Node) -> None:
        """Put the node in the place of the one that writes its output."""
        old = self._nodes[node.output]
        self._nodes[node.output] = node
        self._read(node.output, node.inputs)
        self._unread(node.output, old.inputs)

    def remove(self, node: Node) -> None:
        """Take the node out."""
        del self._nodes[node.output]
        self._outputs_at[self._place.pop(node.output)].remove(node.output)
        self._unread(node.output, node.inputs)
        self._drop_unused(node.output)

    def rename(self, old: str, new: str) -> None:
        """Let all that read the value `old` read `new`."""
        for node in self.users(old):
            inputs = tuple(new if name == old else name for name in node.inputs)
            self._nodes[node.output] = Node(node.op, inputs, node.output, node.layer)
        self._readers[new] += self._readers[old]
        self._readers[old] = []
        self._builder.outputs = tuple(new if name == old else name for name in self.outputs)
        self._drop_unused(old)

    def finish(self) -> Graph:
        """The graph as it is now."""
        self._builder.nodes = list(self.walk())
        return self._builder.finish()

    def _order(self, output: str) -> tuple[int, int]:
        place = self._place[output]
        return place, self._outputs_at[place].index(output)

    def _read(self, reader: str, names: tuple[str, ...]) -> None:
        for name in names:
            self._readers[name].append(reader)

    def _unread(self, reader: str, names: tuple[str, ...]) -> None:
        for name in names:
            self._readers[name].remove(reader)
            self._drop_unused(name)

    def _drop_unused(self, name: str) -> None:
        builder = self._builder
        if name in self._nodes or self._readers.get(name) or name in builder.inputs or name in builder.outputs:
            return
        self._readers.pop(name, None)
        builder.types.pop(name, None)
        builder.constants.pop(name, None)
