"""Make a binary layer, and all that stands between its sums and their sign, one node with an integer threshold."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.passes.binary import chain_after, only_user
from netopt.graph.passes.monotone import change_of_float, change_of_integer
from netopt.numerics import INT32, SIGN_BITS, SIGNS
from netopt.ops import Arithmetic, BinaryConv2d, BinaryDense, Pool2d, Sign, SignPool2d


def find_integer_thresholds(graph: Graph) -> Graph:
    """binary layer on signs -> chain -> packed sign becomes one node: the layer with an integer threshold.

    A maximum over windows within the chain becomes one over signs, after the layer.
    """
    users = graph.users()
    builder = GraphBuilder(graph)
    replaced: dict[str, list[Node]] = {}
    dropped: set[str] = set()
    for node in graph.nodes:
        end = _end_of_sums(graph, node, users)
        if end is None:
            continue
        assert isinstance(node.op, BinaryConv2d | BinaryDense)
        layer = _with_threshold(graph, builder, node, end)
        if end.pool is None:
            replaced[end.sign] = [dataclasses.replace(layer, output=end.sign)]
        else:
            name = builder.fresh_name(f"{end.sign}_unpooled")
            builder.types[name] = dataclasses.replace(graph.types[node.output], format=SIGNS)
            pool = _sign_pool(graph, builder, end, name)
            replaced[end.sign] = [dataclasses.replace(layer, output=name), pool]
        dropped |= {node.output, *(link.output for link in (*end.before, *end.after))}
        if end.pool is not None:
            dropped.add(end.pool.output)
    for node in graph.nodes:
        if node.output not in dropped:
            builder.nodes += replaced.get(node.output, [node])
    return builder.finish()


@dataclass(frozen=True)
class _End:
    """What stands between the sums of a binary layer and their sign: a chain, or two with a maximum between them."""

    before: list[Node]
    pool: Node | None
    after: list[Node]
    sign: str


def _end_of_sums(graph: Graph, node: Node, users: dict[str, list[Node]]) -> _End | None:
    """What follows a binary layer on signs, if it ends in a packed sign."""
    op = node.op
    if not isinstance(op, BinaryConv2d | BinaryDense) or not op.reads_signs(graph.node_types(node)):
        return None
    if isinstance(op, BinaryDense) and len(graph.types[node.output].shape) != 2:
        return None
    channels = len(graph.constants[node.inputs[1]])
    before = chain_after(graph, node.output, users, channels)
    after: list[Node] = []
    last = before[-1].output if before else node.output
    pool = only_user(graph, last, users)
    if pool is not None and isinstance(pool.op, Pool2d) and pool.op.function == "max" and pool.op.dilation == (1, 1):
        after = chain_after(graph, pool.output, users, channels)
        last = after[-1].output if after else pool.output
    else:
        pool = None
    sign = only_user(graph, last, users)
    if sign is None or sign.op != Sign() or graph.types[sign.output].format != SIGNS:
        return None
    return _End(before, pool, after, sign.output)


def _with_threshold(graph: Graph, builder: GraphBuilder, node: Node, end: _End) -> Node:
    """The layer with the threshold at which the sign of what follows changes."""
    assert isinstance(node.op, BinaryConv2d | BinaryDense)
    weight, source = graph.constants[node.inputs[1]], f"{node.output}_sums"
    chain = [*_bias_as_chain(builder, node, source), *end.before, *_relinked(end)]
    sums = Graph((source,), (), (), {source: graph.types[node.output]}, builder.constants)
    change = change_of_integer(sums, chain, source, len(weight), weight[0].numel())
    falls = change.direction < 0
    names = [
        node.inputs[1],
        builder.add_constant(f"{node.output}_threshold", torch.where(falls, -change.at, change.at), INT32),
    ]
    if bool(falls.any()):
        flipped = torch.where(falls.reshape(-1, *[1] * (weight.dim() - 1)), -weight, weight)
        names[0] = builder.add_constant(f"{node.inputs[1]}_rising", flipped, SIGN_BITS)
    op = dataclasses.replace(node.op, has_threshold=True, has_bias=False)
    return Node(op, (node.inputs[0], *names), node.output, node.layer)


def _relinked(end: _End) -> list[Node]:
    """The chain after a pooling, reading what the pooling read: of one number it is the maximum."""
    if end.pool is None or not end.after:
        return end.after
    source, pooled = end.pool.inputs[0], end.pool.output
    inputs = tuple(source if name == pooled else name for name in end.after[0].inputs)
    return [dataclasses.replace(end.after[0], inputs=inputs), *end.after[1:]]


def _sign_pool(graph: Graph, builder: GraphBuilder, end: _End, signs: str) -> Node:
    """The maximum, of signs: any is +1 where what follows the maximum rises, all are where it falls."""
    assert end.pool is not None and isinstance(end.pool.op, Pool2d)
    channels = graph.types[end.pool.output].shape[1]
    direction = torch.ones(channels)
    if end.after:
        direction = change_of_float(graph, end.after, end.pool.output, channels).direction
    name = builder.add_constant(f"{end.sign}_direction", SIGN_BITS.encode(direction), SIGN_BITS)
    op = end.pool.op
    pool = SignPool2d(op.kernel, op.stride, op.window().padding)
    return Node(pool, (signs, name), end.sign, end.pool.layer)


def _bias_as_chain(builder: GraphBuilder, node: Node, source: str) -> list[Node]:
    """The layer's own bias as an addition, after the sums `source`; else what makes `source` the layer's output."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rank = len(builder.types[node.output].shape)
    channels = builder.types[node.output].shape[1]
    values = torch.zeros(channels) if bias is None else builder.constants[bias]
    name = builder.add_constant(f"{source}_bias", values.reshape(-1, *[1] * (rank - 2)))
    return [Node(Arithmetic("add"), (source, name), node.output, node.layer)]
