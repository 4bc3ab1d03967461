"""Let an op with an epilogue, such as a convolution, apply the activation that follows it."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node


def fuse_activation(graph: Graph) -> Graph:
    """dense or conv2d -> pointwise becomes one node, where nothing else reads the value between them."""
    users, outputs = graph.users(), set(graph.outputs)
    builder = GraphBuilder(graph)
    fused: dict[str, Node] = {}  # value between the two -> the node that does both
    for node in graph.nodes:
        readers = users[node.output]
        if len(readers) == 1 and node.output not in outputs:
            op = node.op.with_activation(readers[0].op)
            if op is not None:
                fused[node.output] = Node(op, node.inputs, readers[0].output, node.layer)
                continue
        builder.nodes.append(fused.get(node.inputs[0], node) if node.inputs else node)
    return builder.finish()
