"""Let a dense layer or a convolution apply the activation that follows it."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import BinaryConv2d, BinaryDense, Conv2d, ConvTranspose2d, Dense, Pointwise

# Layers with an end that residual and activation fuse into.
FUSING = (BinaryConv2d, BinaryDense, Conv2d, ConvTranspose2d, Dense)


def fuse_activation(graph: Graph) -> Graph:
    """dense or conv2d -> pointwise becomes one node, where nothing else reads the value between them."""
    users, outputs = graph.users(), set(graph.outputs)
    builder = GraphBuilder(graph)
    fused: dict[str, Node] = {}  # value between the two -> the node that wrote it
    for node in graph.nodes:
        if isinstance(node.op, FUSING) and node.op.activation is None and not node.op.gives_signs:
            readers = users[node.output]
            if len(readers) == 1 and isinstance(readers[0].op, Pointwise) and node.output not in outputs:
                fused[node.output] = node
                continue
        if node.inputs and node.inputs[0] in fused and isinstance(node.op, Pointwise):
            layer = fused[node.inputs[0]]
            assert isinstance(layer.op, FUSING)
            op = dataclasses.replace(layer.op, activation=node.op)
            node = Node(op, layer.inputs, node.output, layer.layer)
        builder.nodes.append(node)
    return builder.finish()
