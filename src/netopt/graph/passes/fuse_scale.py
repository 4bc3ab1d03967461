"""Let a matrix product multiply by the number that its operand or its result is multiplied by."""

from __future__ import annotations

import dataclasses
import math

from netopt.graph.graph import Graph, GraphBuilder, Node, replace_values
from netopt.ops import Arithmetic, Matmul, Permute, Reshape


def fuse_scale(graph: Graph) -> Graph:
    """mul or div by a constant of one element goes into the matmul before it, or after it, past views of its result.

    Where nothing else reads the value between them.
    """
    changed = True
    while changed:
        graph, changed = _fuse_one(graph)
    return graph


def _fuse_one(graph: Graph) -> tuple[Graph, bool]:
    for node in graph.nodes:
        factor = _factor(graph, node)
        if factor is None:
            continue
        product = _product_before(graph, node) or _product_after(graph, node)
        if product is not None:
            assert isinstance(product.op, Matmul)
            scaled = dataclasses.replace(product.op, scale=product.op.scale * factor)
            builder = GraphBuilder(graph)
            builder.nodes = [Node(scaled, n.inputs, n.output, n.layer) if n is product else n for n in graph.nodes]
            return replace_values(builder.finish(), {node.output: node.inputs[0]}, frozenset({node.output})), True
    return graph, False


def _factor(graph: Graph, node: Node) -> float | None:
    """The number that a node multiplies its first input by, if that is what it does."""
    if node.op not in (Arithmetic("mul"), Arithmetic("div")):
        return None
    number = graph.constants.get(node.inputs[1])
    if number is None or number.numel() != 1 or graph.types[node.output] != graph.types[node.inputs[0]]:
        return None
    value = float(number)
    factor = value if node.op == Arithmetic("mul") else (1.0 / value if value else math.inf)
    return factor if math.isfinite(factor) else None


def _product_before(graph: Graph, node: Node) -> Node | None:
    product = graph.producers().get(node.inputs[0])
    alone = len(graph.users()[node.inputs[0]]) == 1 and node.inputs[0] not in graph.outputs
    return product if product is not None and alone and isinstance(product.op, Matmul) else None


def _product_after(graph: Graph, node: Node) -> Node | None:
    users, value = graph.users(), node.output
    while len(users[value]) == 1 and value not in graph.outputs:
        (user,) = users[value]
        if isinstance(user.op, Matmul):
            return user
        if not isinstance(user.op, Reshape | Permute):
            return None
        value = user.output
    return None
