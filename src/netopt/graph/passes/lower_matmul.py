"""Make a product with a constant matrix a dense layer, whose weights are packed once and for all."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Arithmetic, Dense, Matmul


def lower_matmul(graph: Graph) -> Graph:
    """matmul by a constant matrix becomes dense; a constant vector that is added to a dense layer becomes its bias."""
    return _take_in_biases(_with_constant_matrices(graph))


def _with_constant_matrices(graph: Graph) -> Graph:
    builder = GraphBuilder(graph)
    for node in graph.nodes:
        if node.op == Matmul() and _is_matrix(graph, node):
            weight = graph.constants[node.inputs[1]].reshape(graph.types[node.inputs[1]].shape[-2:]).T
            name = builder.add_constant(f"{node.inputs[1]}_transposed", weight)
            node = Node(Dense(), (node.inputs[0], name), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _is_matrix(graph: Graph, node: Node) -> bool:
    """Whether the second operand is one constant matrix, and adds no axes to the product."""
    x, y = (graph.types[name].shape for name in node.inputs)
    return node.inputs[1] in graph.constants and set(y[:-2]) <= {1} and len(y) <= len(x)


def _take_in_biases(graph: Graph) -> Graph:
    users, producers, outputs = graph.users(), graph.producers(), set(graph.outputs)
    builder = GraphBuilder(graph)
    dropped: set[str] = set()
    for node in graph.nodes:
        if node.op == Arithmetic("add"):
            for value, bias in (node.inputs, node.inputs[::-1]):
                layer = producers.get(value)
                alone = len(users[value]) == 1 and value not in outputs
                if layer is None or layer.op != Dense() or not alone or bias not in graph.constants:
                    continue
                width = (graph.types[value].shape[-1],)
                if _trimmed(graph.types[bias].shape) == width and graph.types[node.output] == graph.types[value]:
                    name = builder.add_constant(f"{bias}_flat", graph.constants[bias].reshape(width))
                    node = Node(Dense(has_bias=True), (*layer.inputs, name), node.output, layer.layer)
                    dropped.add(value)
                    break
        builder.nodes.append(node)
    builder.nodes = [node for node in builder.nodes if node.output not in dropped]
    return builder.finish()


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the axes of size 1 in front of the last axis, if it has nothing else there."""
    return shape[-1:] if set(shape[:-1]) <= {1} else shape
