"""Make layers whose weights are all +1 and -1 binary ops, and store the signs that they read in one bit each.

Both at once: no other op reads packed signs. Layers on floating numbers keep their weights in one bit, too.
"""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.passes.binary import has_binary_weights, ones_around, takes_bits
from netopt.numerics import SIGN_BITS, SIGNS
from netopt.ops import BinaryConv2d, BinaryDense, Conv2d, Dense, Sign
from netopt.ops.spatial import Sides


def binarize_layers(graph: Graph) -> Graph:
    """See the module."""
    return _binary_ops(_pack_signs(graph))


def _pack_signs(graph: Graph) -> Graph:
    """Signs that layers read packed are computed apart from those that something else reads as numbers."""
    users = graph.users()
    builder = GraphBuilder(graph)
    packed: dict[tuple[str, str], str] = {}
    for node in graph.nodes:
        inputs = tuple(packed.get((name, node.output), name) for name in node.inputs)
        builder.nodes.append(dataclasses.replace(node, inputs=inputs))
        if not isinstance(node.op, Sign):
            continue
        readers = [user for user in users[node.output] if _reads_bits(graph, user, node.output, users)]
        if not readers:
            continue
        if len(readers) < len(users[node.output]) or node.output in graph.outputs:
            copy = builder.add_node(node.op, node.inputs, f"{node.output}_packed", node.layer)
            packed |= {(node.output, reader.output): copy for reader in readers}
        else:
            copy = node.output
        builder.types[copy] = dataclasses.replace(builder.types[copy], format=SIGNS)
    return builder.finish()


def _reads_bits(graph: Graph, user: Node, signs: str, users: dict[str, list[Node]]) -> bool:
    """Whether `user` can read `signs` packed: a layer, or padding by +1 before layers."""
    if user.inputs[0] != signs or user.inputs.count(signs) != 1:
        return False
    if ones_around(user) is None:
        return takes_bits(graph, user)
    readers = users[user.output]
    return (
        user.output not in graph.outputs
        and bool(readers)
        and all(
            takes_bits(graph, reader)
            and isinstance(reader.op, Conv2d)
            and reader.inputs[0] == user.output
            and not any(reader.op.padding)
            for reader in readers
        )
    )


def _binary_ops(graph: Graph) -> Graph:
    """Each layer that is binary becomes a binary op, with the padding by +1 before it; the bias stays."""
    builder = GraphBuilder(graph)
    around: dict[str, tuple[str, Sides]] = {}
    for node in graph.nodes:
        sides = ones_around(node)
        if sides is not None and graph.types[node.inputs[0]].format == SIGNS:
            around[node.output] = (node.inputs[0], sides)
            continue
        x = node.inputs[0] if node.inputs else ""
        reads = x in around or (x and graph.types[x].format == SIGNS)
        if has_binary_weights(graph, node) and (reads or _keeps_bits(graph, node)):
            signs = SIGN_BITS.encode(graph.numbers(node.inputs[1]))
            weight = builder.add_constant(f"{node.inputs[1]}_signs", signs, SIGN_BITS)
            x, sides = around.get(x, (x, None))
            node = Node(_binary_op(node, sides), (x, weight, *node.inputs[2:]), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _keeps_bits(graph: Graph, node: Node) -> bool:
    """Whether a layer on floating numbers is to keep its weights in bits: not one of a few weights an output."""
    return not isinstance(node.op, Conv2d) or graph.types[node.inputs[1]].shape[1] > 1 or node.op.groups == 1


def _binary_op(node: Node, ones: Sides | None) -> BinaryConv2d | BinaryDense:
    op = node.op
    if isinstance(op, Dense):
        return BinaryDense(has_bias=op.has_bias)
    assert isinstance(op, Conv2d)
    padding = op.padding if ones is None else ones
    return BinaryConv2d(op.stride, padding, op.dilation, op.groups, ones is not None, has_bias=op.has_bias)
