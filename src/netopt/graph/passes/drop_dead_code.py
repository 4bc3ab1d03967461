"""Remove nodes whose results nobody reads."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node


def drop_dead_code(graph: Graph) -> Graph:
    """Keep the nodes that an output depends on. The inputs of the graph stay: they are its signature."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    builder = GraphBuilder(graph)
    builder.nodes = kept[::-1]
    return builder.finish()
