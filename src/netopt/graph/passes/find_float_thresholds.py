"""Make what stands between floating numbers and a packed sign a threshold of that sign."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.passes.binary import only_user
from netopt.graph.passes.monotone import change_of_float, is_monotone
from netopt.numerics import SIGNS
from netopt.ops import Sign


def find_float_thresholds(graph: Graph) -> Graph:
    """chain -> packed sign, on floating numbers, becomes a sign with a threshold for each channel."""
    users, producers = graph.users(), graph.producers()
    builder = GraphBuilder(graph)
    replaced: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in graph.nodes:
        shape = graph.types[node.output].shape
        if node.op != Sign() or len(shape) not in (2, 4) or graph.types[node.output].format != SIGNS:
            continue
        chain: list[Node] = []
        value = node.inputs[0]
        while (link := producers.get(value)) is not None and only_user(graph, value, users) is not None:
            source = next((name for name in link.inputs if name not in graph.constants), None)
            if source is None or not is_monotone(graph, link, source, shape[1]) or graph.types[source].shape != shape:
                break
            chain.insert(0, link)
            value = source
        if not chain:
            continue
        change = change_of_float(graph, chain, value, shape[1])
        names = (
            builder.add_constant(f"{node.output}_threshold", change.at),
            builder.add_constant(f"{node.output}_direction", change.direction),
        )
        replaced[node.output] = Node(Sign(has_threshold=True), (value, *names), node.output, node.layer)
        dropped |= {link.output for link in chain}
    builder.nodes = [replaced.get(node.output, node) for node in graph.nodes if node.output not in dropped]
    return builder.finish()
