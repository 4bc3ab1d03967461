"""Let a dense layer apply the activation that follows it."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Dense, Pointwise


def fuse_activation(graph: Graph) -> Graph:
    """dense -> pointwise becomes one dense, where nothing else reads the value between them."""
    users, outputs = graph.users(), set(graph.outputs)
    builder = GraphBuilder(graph)
    fused: dict[str, Node] = {}  # value between the two -> the dense node that wrote it
    for node in graph.nodes:
        if isinstance(node.op, Dense) and node.op.activation is None:
            readers = users[node.output]
            if len(readers) == 1 and isinstance(readers[0].op, Pointwise) and node.output not in outputs:
                fused[node.output] = node
                continue
        if node.inputs and node.inputs[0] in fused and isinstance(node.op, Pointwise):
            dense = fused[node.inputs[0]]
            assert isinstance(dense.op, Dense)
            op = dataclasses.replace(dense.op, activation=node.op)
            node = Node(op, dense.inputs, node.output, dense.layer)
        builder.nodes.append(node)
    return builder.finish()
