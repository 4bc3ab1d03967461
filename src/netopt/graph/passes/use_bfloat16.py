"""Store weights and activations in bfloat16 where the kernels read them so; sums stay in float32."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.spread import spread
from netopt.numerics import BFLOAT16, FLOAT32, SignFormat
from netopt.ops.epilogue import EpilogueOp


def use_bfloat16(graph: Graph) -> Graph:
    """Make bfloat16 of the weights of dense layers and convolutions, and of the values that allow it.

    A value does if the op that writes it and all that read it can, and it is no output of the network. The weights of
    a layer are rounded if its input is bfloat16, which is what the product instructions of a CPU ask for; those of one
    bit stay as they are, and their scales and biases are rounded.
    """
    narrow = _narrow_values(graph)
    builder = GraphBuilder(graph)
    for name in narrow:
        builder.types[name] = dataclasses.replace(graph.types[name], format=BFLOAT16)
    rounded: dict[str, str] = {}
    for node in graph.nodes:
        if _multiplies_narrow(node, graph) and node.inputs[0] in narrow:
            weight = node.inputs[1]
            if weight not in rounded:
                value = BFLOAT16.encode(graph.constants[weight])
                rounded[weight] = builder.add_constant(f"{weight}_bfloat16", value, BFLOAT16)
            node = dataclasses.replace(node, inputs=(node.inputs[0], rounded[weight], *node.inputs[2:]))
        elif _has_weight_of_bits(node, graph):
            node = _with_narrow_epilogue(node, graph, builder)
        builder.nodes.append(node)
    return builder.finish()


def _multiplies_narrow(node: Node, graph: Graph) -> bool:
    """Whether the node's weight is known, in float32, and could be stored in the format of what it multiplies."""
    types = graph.node_types(node)
    if 1 not in node.op.constant_operands(types) or node.inputs[1] not in graph.constants:
        return False
    fits = types[1].format == FLOAT32 and node.op.reads(1, BFLOAT16, types)
    return fits and node.op.sums_products(types)


def _has_weight_of_bits(node: Node, graph: Graph) -> bool:
    """Whether it is a layer with weights of one bit whose sums stay numbers."""
    if not isinstance(node.op, EpilogueOp) or node.op.gives_signs:
        return False
    return isinstance(graph.types[node.inputs[1]].format, SignFormat)


def _with_narrow_epilogue(node: Node, graph: Graph, builder: GraphBuilder) -> Node:
    """The layer with scale and bias in bfloat16: beside weights of one bit they are many of the bytes."""
    inputs, types = list(node.inputs), graph.node_types(node)
    for index in node.op.constant_operands(types)[1:]:
        if node.op.reads(index, BFLOAT16, types):
            value = BFLOAT16.encode(graph.numbers(inputs[index]))
            inputs[index] = builder.add_constant(f"{inputs[index]}_bfloat16", value, BFLOAT16)
    return dataclasses.replace(node, inputs=tuple(inputs))


def _narrow_values(graph: Graph) -> set[str]:
    """The values to store in bfloat16."""
    users, producers = graph.users(), graph.producers()
    narrow = {
        name
        for name in graph.types
        if graph.types[name].format == FLOAT32
        and name not in graph.constants
        and name not in graph.outputs
        and users[name]
        and (name not in producers or graph.takes(producers[name], name, BFLOAT16))
        and all(graph.takes(user, name, BFLOAT16) for user in users[name])
    }
    # What a view sees has one format, and so have all views of it.
    tied = [{*node.inputs, node.output} for node in graph.nodes if node.op.keeps_format]
    return narrow - spread(set().union(*tied) - narrow, tied)
