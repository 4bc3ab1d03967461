"""Remove ops that change nothing, and make a reshape of a reshape one."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node, replace_values
from netopt.ops import Concat, Permute, Reshape, Slice


def drop_identities(graph: Graph) -> Graph:
    """Read past each reshape, slice, permute or concat that keeps its input as it is."""
    # Each may make work for the other: (6, 4) -> identity -> (24,) becomes one reshape, which may be an identity.
    while True:
        merged = _merge_reshapes(_read_past_identities(graph))
        if merged.nodes == graph.nodes:
            return merged
        graph = merged


def _read_past_identities(graph: Graph) -> Graph:
    renames = {node.output: node.inputs[0] for node in graph.nodes if _is_identity(graph, node)}
    return replace_values(graph, renames, frozenset(renames))


def _is_identity(graph: Graph, node: Node) -> bool:
    if not node.inputs or graph.types[node.inputs[0]] != graph.types[node.output]:
        return False
    match node.op:
        case Reshape() | Slice():
            return True
        case Concat():
            return len(node.inputs) == 1
        case Permute(axes):
            return axes == tuple(range(len(axes)))
        case _:
            return False


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
