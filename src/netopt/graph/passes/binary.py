"""What the passes of binary layers share: which layers have weights of +1 and -1, and what follows their sums."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, Node
from netopt.graph.passes.monotone import is_monotone
from netopt.ops import BinaryDense, Conv2d, Dense, Pad
from netopt.ops.spatial import Sides


def has_binary_weights(graph: Graph, node: Node) -> bool:
    """Whether it is a layer with weights of +1 and -1 that has a binary op.

    Not one whose outputs each have a single weight: that is a scale, and no sum.
    """
    if not isinstance(node.op, Conv2d | Dense) or node.op.activation is not None or node.op.has_residual:
        return False
    weight = graph.constants.get(node.inputs[1])
    known = not node.op.has_bias or node.inputs[2] in graph.constants
    if weight is None or not known or weight[0].numel() == 1:
        return False
    return bool((weight.abs() == 1).all())


def takes_bits(graph: Graph, node: Node) -> bool:
    """Whether the layer can read packed signs: with groups, each must have whole words of channels."""
    if not has_binary_weights(graph, node) or is_dense_on_images(graph, node):
        return False
    if not isinstance(node.op, Conv2d) or node.op.groups == 1:
        return True
    outputs, channels = graph.types[node.inputs[1]].shape[:2]
    return channels % 32 == 0 and outputs // node.op.groups % 32 == 0


def is_dense_on_images(graph: Graph, node: Node) -> bool:
    """Whether it is a dense layer on four axes: its channels are the last, where all else takes axis 1 for them."""
    return isinstance(node.op, Dense | BinaryDense) and len(graph.types[node.output].shape) == 4


def ones_around(node: Node) -> Sides | None:
    """(top, bottom, left, right) of a node that puts +1 around images and does nothing else; else None."""
    op = node.op
    if not isinstance(op, Pad) or op.mode != "constant" or op.value != 1.0:
        return None
    return dataclasses.replace(op, value=0.0).zero_sides


def only_user(graph: Graph, value: str, users: dict[str, list[Node]]) -> Node | None:
    """The node that reads the value, if it is the only one and the value is no output."""
    return users[value][0] if len(users[value]) == 1 and value not in graph.outputs else None


def chain_after(graph: Graph, value: str, users: dict[str, list[Node]], channels: int) -> list[Node]:
    """The monotone functions that follow a value one after the other, each the only one to read what is before it."""
    chain: list[Node] = []
    while (user := only_user(graph, value, users)) is not None and is_monotone(graph, user, value, channels):
        chain.append(user)
        value = user.output
    return chain
