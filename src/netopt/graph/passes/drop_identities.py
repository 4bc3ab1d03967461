"""Remove ops that change nothing, make a reshape of a reshape one, and leave broadcasts to elementwise ops."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node, replace_values
from netopt.ops import Expand, Reshape


def drop_identities(graph: Graph) -> Graph:
    """Read past each reshape, slice, permute or concat that keeps its input as it is, and past needless broadcasts."""
    # Each may make work for the other: (6, 4) -> identity -> (24,) becomes one reshape, which may be an identity.
    while True:
        merged = _merge_reshapes(_read_past_expands(_read_past_identities(graph)))
        if merged.nodes == graph.nodes:
            return merged
        graph = merged


def _read_past_identities(graph: Graph) -> Graph:
    renames = {node.output: node.inputs[0] for node in graph.nodes if _is_identity(graph, node)}
    return replace_values(graph, renames, frozenset(renames))


def _is_identity(graph: Graph, node: Node) -> bool:
    if not node.inputs or graph.types[node.inputs[0]] != graph.types[node.output]:
        return False
    return node.op.is_identity(graph.node_types(node))


def _read_past_expands(graph: Graph) -> Graph:
    """Let elementwise ops broadcast what was broadcast for them, where their result is as large without that."""
    producers = graph.producers()
    builder = GraphBuilder(graph)
    for node in graph.nodes:
        if node.op.elementwise and len(node.inputs) > 1:
            sources = tuple(
                producers[name].inputs[0] if name in producers and isinstance(producers[name].op, Expand) else name
                for name in node.inputs
            )
            if node.op.infer([graph.types[name] for name in sources]) == graph.types[node.output]:
                node = Node(node.op, sources, node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _merge_reshapes(graph: Graph) -> Graph:
    builder = GraphBuilder(graph)
    sources: dict[str, str] = {}
    for node in graph.nodes:
        if isinstance(node.op, Reshape):
            source = sources.get(node.inputs[0], node.inputs[0])
            sources[node.output] = source
            node = Node(node.op, (source,), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()
