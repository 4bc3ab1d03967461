"""Which values of a network are to be codes, and which of them must have one format.

A layer multiplies codes by codes, so what it reads must be codes, and so must all be that lies between such layers and
that ops compute exactly on codes. What only other ops read, such as a softmax, stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.spread import spread
from netopt.numerics import FLOAT32
from netopt.ops import (
    ChannelShuffle,
    Concat,
    Conv2d,
    Convert,
    ConvTranspose2d,
    Dense,
    Expand,
    Op,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Pool2d,
    Reshape,
    Resize,
    Slice,
)

LAYERS = (Conv2d, Dense, ConvTranspose2d)
# They move elements, or choose among them: codes of one position stay codes of that position.
_MOVES = (ChannelShuffle, Concat, Expand, Pad, Permute, PixelShuffle, PixelUnshuffle, Reshape, Slice)

IsChosen = Callable[[Node], bool]


@dataclass(frozen=True)
class Assignment:
    """What is to be codes.

    Attributes:
        layers: nodes that multiply codes by codes, by the value that they write.
        groups: values that share a format, each in exactly one group, the first in order of execution first.
    """

    layers: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]

    @property
    def values(self) -> frozenset[str]:
        """All values that are codes."""
        return frozenset(name for group in self.groups for name in group)


def layers_of(graph: Graph) -> list[Node]:
    """The layers with known weights in float32."""
    return [node for node in graph.nodes if isinstance(node.op, LAYERS) and _has_float_weights(node, graph)]


def _has_float_weights(node: Node, graph: Graph) -> bool:
    known = node.op.constant_operands(graph.node_types(node))
    return all(node.inputs[i] in graph.constants and graph.types[node.inputs[i]].format == FLOAT32 for i in known)


def assign(graph: Graph, is_chosen: IsChosen) -> Assignment:
    """What is to be codes where the chosen layers multiply codes.

    Outputs of the network are not: their readers get codes of their own (see `separate_outputs`).
    """
    layers = {node.output: node for node in layers_of(graph) if is_chosen(node)}
    codes: set[str] = set()
    for node in reversed(graph.nodes):
        codes |= _wanted(node, node.output in layers, node.output in codes, graph)
    codes -= set(graph.outputs)
    order = [*graph.inputs, *(node.output for node in graph.nodes)]
    tied = [
        {*node.inputs, node.output} & codes for node in graph.nodes if node.output in codes and keeps_codes(node.op)
    ]
    groups: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for name in order:
        if name in codes and name not in seen:
            members = spread([name], tied)
            groups.append(tuple(value for value in order if value in members))
            seen |= members
    return Assignment(tuple(layers), tuple(groups))


def _wanted(node: Node, is_layer: bool, gives_codes: bool, graph: Graph) -> set[str]:
    """The inputs of a node that are to be codes."""
    inputs = [name for name in node.inputs if name not in graph.constants and graph.types[name].format == FLOAT32]
    if is_layer:
        return set(inputs if gives_codes else inputs[:1])
    return set(inputs) if gives_codes and node.op.takes_codes and not isinstance(node.op, LAYERS) else set()


def keeps_codes(op: Op) -> bool:
    """Whether what it gives are codes that it reads, so that both have one format."""
    if isinstance(op, Pool2d):
        return op.function == "max"
    return isinstance(op, _MOVES) or (isinstance(op, Resize) and op.is_nearest)


def separate_outputs(graph: Graph) -> Graph:
    """The graph in which no op reads an output of the network, but a copy of it, which may be codes."""
    users = graph.users()
    copies = {name: "" for name in graph.outputs if users[name] and name not in graph.constants}
    builder = GraphBuilder(graph)
    for name in [name for name in graph.inputs if name in copies]:
        copies[name] = builder.add_node(Convert(), (name,), f"{name}_read", "")
    for node in graph.nodes:
        inputs = tuple(copies.get(name, name) for name in node.inputs)
        builder.nodes.append(Node(node.op, inputs, node.output, node.layer))
        if node.output in copies:
            copies[node.output] = builder.add_node(Convert(), (node.output,), f"{node.output}_read", node.layer)
    return builder.finish()
