"""Let matrix products read cut, permuted and broadcast values where they lie, and write permuted ones."""

from __future__ import annotations

import dataclasses

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Matmul, Permute, Reshape, View
from netopt.ops.strides import Strides


def read_in_place(graph: Graph) -> Graph:
    """Reshape, slice, permute and expand before a matmul become views of its operands; a permute after it, its axes.

    The copies that nobody else reads are then dead code.
    """
    return _write_permuted(_read_views(graph))


def _read_views(graph: Graph) -> Graph:
    producers = graph.producers()
    builder = GraphBuilder(graph)
    for node in graph.nodes:
        if isinstance(node.op, Matmul) and node.op.first is None and node.op.second is None:
            (first, x), (second, y) = (_source(graph, producers, name) for name in node.inputs)
            node = Node(dataclasses.replace(node.op, first=x, second=y), (first, second), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _source(graph: Graph, producers: dict[str, Node], name: str) -> tuple[str, View | None]:
    """The value furthest up that `name` is a view of, and that view."""
    chain: list[Node] = []
    sources = [name]
    while sources[-1] in producers and producers[sources[-1]].op.has_strides:
        chain.append(producers[sources[-1]])
        sources.append(chain[-1].inputs[0])
    for length in range(len(chain), 0, -1):
        if all(isinstance(node.op, Reshape) for node in chain[:length]):
            break
        strides: Strides | None = Strides.whole(graph.types[sources[length]].shape)
        for node in reversed(chain[:length]):
            strides = node.op.strided(strides) if strides is not None else None
        view = strides.view() if strides is not None else None
        if view is not None:
            return sources[length], view
    return name, None


def _write_permuted(graph: Graph) -> Graph:
    """The last axis stays last: columns are written in vectors."""
    users, producers, outputs = graph.users(), graph.producers(), set(graph.outputs)
    builder = GraphBuilder(graph)
    dropped: set[str] = set()
    for node in graph.nodes:
        product = producers.get(node.inputs[0]) if isinstance(node.op, Permute) else None
        if product is not None and isinstance(product.op, Matmul) and not product.op.axes:
            assert isinstance(node.op, Permute)
            axes, alone = node.op.axes, len(users[product.output]) == 1 and product.output not in outputs
            if alone and axes[-1] == len(axes) - 1:
                op = dataclasses.replace(product.op, axes=axes)
                node = Node(op, product.inputs, node.output, product.layer)
                dropped.add(product.output)
        builder.nodes.append(node)
    builder.nodes = [node for node in builder.nodes if node.output not in dropped]
    return builder.finish()
