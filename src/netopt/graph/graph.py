"""The typed graph that lowering works on: immutable, in execution order, every shape static."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from netopt.numerics import FLOAT32, NumberFormat
from netopt.ops import Op, TensorType


@dataclass(frozen=True)
class Node:
    """One op applied to named values.

    Attributes:
        op: what to compute.
        inputs: names of the values read, in the op's order.
        output: name of the value written; no other node writes it.
        layer: qualified name of the module that the node comes from, for messages and tables.
    """

    op: Op
    inputs: tuple[str, ...]
    output: str
    layer: str


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order over named, typed values.

    Attributes:
        inputs: names of the values that the caller gives, in order.
        outputs: names of the values that the caller gets, in order; a name may stand there twice.
        nodes: each reads only inputs, constants and outputs of nodes before it.
        types: the type of every value.
        constants: values known when lowering, contiguous CPU tensors of their formats' `tensor_dtype`.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, torch.Tensor]

    def node_types(self, node: Node) -> tuple[TensorType, ...]:
        """The types of the node's inputs."""
        return tuple(self.types[name] for name in node.inputs)

    def producers(self) -> dict[str, Node]:
        """The node that writes each computed value."""
        return {node.output: node for node in self.nodes}

    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each value, in order; a node that reads it twice stands there twice."""
        result: dict[str, list[Node]] = {name: [] for name in self.types}
        for node in self.nodes:
            for name in node.inputs:
                result[name].append(node)
        return result

    def takes(self, node: Node, name: str, format_: NumberFormat) -> bool:
        """Whether the kernel of the node can read or write this value of its in a format."""
        types = self.node_types(node)
        if name == node.output:
            return node.op.writes(format_, types)
        return node.op.reads(node.inputs.index(name), format_, types)

    def numbers(self, constant: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """What a constant stands for, in a floating type; whole numbers as they are."""
        return self.types[constant].format.numbers(self.constants[constant], dtype)

    def multiply_adds(self) -> int:
        """Multiply-adds of one run."""
        return sum(node.op.multiply_adds(self.node_types(node)) for node in self.nodes)

    def __str__(self) -> str:
        lines = [f"input  {name}: {self.types[name]}" for name in self.inputs]
        lines += [f"const  {name}: {self.types[name]}" for name in self.constants]
        for node in self.nodes:
            origin = f"  # {node.layer}" if node.layer else ""
            lines.append(f"{node.output}: {self.types[node.output]} = {node.op}({', '.join(node.inputs)}){origin}")
        return "\n".join([*lines, f"return {', '.join(self.outputs)}"])


class GraphBuilder:
    """Builds a graph node by node, or a changed copy of one: used by capture and by the passes."""

    def __init__(self, graph: Graph | None = None) -> None:
        self.inputs: tuple[str, ...] = graph.inputs if graph else ()
        self.outputs: tuple[str, ...] = graph.outputs if graph else ()
        self.types: dict[str, TensorType] = dict(graph.types) if graph else {}
        self.constants: dict[str, torch.Tensor] = dict(graph.constants) if graph else {}
        self.nodes: list[Node] = []

    def fresh_name(self, wish: str) -> str:
        """`wish`, or `wish` with a number after it where that name is taken."""
        name, number = wish, 1
        while name in self.types:
            number += 1
            name = f"{wish}_{number}"
        return name

    def add_constant(self, wish: str, value: torch.Tensor, format_: NumberFormat = FLOAT32) -> str:
        """Add a constant, of what the format's `encode` gives, and return its name."""
        name = self.fresh_name(wish)
        self.constants[name] = value.detach().to("cpu").contiguous()
        self.types[name] = TensorType(tuple(value.shape), format_)
        return name

    def add_node(self, op: Op, inputs: tuple[str, ...], wish: str, layer: str) -> str:
        """Add a node with a new output value and return that value's name."""
        name = self.fresh_name(wish)
        self.types[name] = op.infer([self.types[i] for i in inputs])
        self.nodes.append(Node(op, inputs, name, layer))
        return name

    def finish(self) -> Graph:
        """The graph, without constants and values that nothing uses."""
        used = set(self.inputs) | set(self.outputs)
        for node in self.nodes:
            used |= {node.output, *node.inputs}
        types = {name: type_ for name, type_ in self.types.items() if name in used}
        constants = {name: value for name, value in self.constants.items() if name in used}
        return Graph(self.inputs, self.outputs, tuple(self.nodes), types, constants)


def replace_values(graph: Graph, renames: Mapping[str, str], dropped: frozenset[str] = frozenset()) -> Graph:
    """The graph reading `renames[name]` in place of each value `name`, without the nodes that write `dropped`."""

    def final(name: str) -> str:
        while name in renames:
            name = renames[name]
        return name

    builder = GraphBuilder(graph)
    builder.outputs = tuple(final(name) for name in graph.outputs)
    builder.nodes = [
        Node(node.op, tuple(final(name) for name in node.inputs), node.output, node.layer)
        for node in graph.nodes
        if node.output not in dropped
    ]
    return builder.finish()
