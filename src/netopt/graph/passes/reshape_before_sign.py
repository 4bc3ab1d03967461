"""Reshape numbers rather than their signs, so that a layer after the reshape reads a sign."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Reshape, Sign


def reshape_before_sign(graph: Graph) -> Graph:
    """sign -> reshape becomes reshape -> sign where all that read the signs reshape them: a sequence to an image."""
    users = graph.users()
    builder = GraphBuilder(graph)
    moved: dict[str, str] = {}
    for node in graph.nodes:
        readers = users[node.output]
        plain = isinstance(node.op, Sign) and not node.op.has_threshold and node.output not in graph.outputs
        if plain and readers and all(isinstance(reader.op, Reshape) for reader in readers):
            moved[node.output] = node.inputs[0]
            continue
        if node.inputs and node.inputs[0] in moved:
            shaped = builder.add_node(node.op, (moved[node.inputs[0]],), f"{node.output}_of", node.layer)
            node = Node(Sign(), (shaped,), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()
