"""Let an op with an epilogue, such as a convolution, add the other branch of a sum that it feeds."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Arithmetic


def fuse_residual(graph: Graph) -> Graph:
    """dense or conv2d -> add becomes one node with a residual.

    Where nothing else reads the layer's output, the sum needs no broadcast, and the other branch is a computed
    value or an input. The layer then runs where the sum ran, so that both branches are there.
    """
    users, outputs, producers = graph.users(), set(graph.outputs), graph.producers()
    builder = GraphBuilder(graph)
    replaced: dict[str, Node] = {}  # the sum's output -> the fused node
    dropped: set[str] = set()
    for node in graph.nodes:
        if node.op != Arithmetic("add"):
            continue
        for value, other in (node.inputs, node.inputs[::-1]):
            layer = producers.get(value)
            op = layer.op.with_residual() if layer is not None else None
            if layer is None or op is None or value in dropped or value in outputs or len(users[value]) != 1:
                continue
            if graph.types[other] == graph.types[value] and other not in graph.constants:
                replaced[node.output] = Node(op, (*layer.inputs, other), node.output, layer.layer)
                dropped.add(value)
                break
    builder.nodes = [replaced.get(node.output, node) for node in graph.nodes if node.output not in dropped]
    return builder.finish()
