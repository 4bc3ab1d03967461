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
        tail = _tail_of_sums(graph, node, users)
        if tail is None:
            continue
        assert isinstance(node.op, BinaryConv2d | BinaryDense)
        layer = _with_threshold(graph, builder, node, tail)
        if tail.pool is None:
            replaced[tail.sign] = [dataclasses.replace(layer, output=tail.sign)]
        else:
            name = builder.fresh_name(f"{tail.sign}_unpooled")
            builder.types[name] = dataclasses.replace(graph.types[node.output], format=SIGNS)
            pool = _sign_pool(graph, builder, tail, name)
            replaced[tail.sign] = [dataclasses.replace(layer, output=name), pool]
        dropped |= {node.output, *(link.output for link in (*tail.before, *tail.after))}
        if tail.pool is not None:
            dropped.add(tail.pool.output)
    for node in graph.nodes:
        if node.output not in dropped:
            builder.nodes += replaced.get(node.output, [node])
    return builder.finish()


@dataclass(frozen=True)
class _Tail:
    """What stands between the sums of a binary layer and their sign: a chain, or two with a maximum between them."""

    before: list[Node]
    pool: Node | None
    after: list[Node]
    sign: str


def _tail_of_sums(graph: Graph, node: Node, users: dict[str, list[Node]]) -> _Tail | None:
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
    return _Tail(before, pool, after, sign.output)


def _with_threshold(graph: Graph, builder: GraphBuilder, node: Node, tail: _Tail) -> Node:
    """The layer with the threshold at which the sign of what follows changes."""
    assert isinstance(node.op, BinaryConv2d | BinaryDense)
    weight, source = graph.constants[node.inputs[1]], f"{node.output}_sums"
    chain = [*_bias_as_chain(builder, node, source), *tail.before, *_relinked(tail)]
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


def _relinked(tail: _Tail) -> list[Node]:
    """The chain after a pooling, reading what the pooling read: of one number it is the maximum."""
    if tail.pool is None or not tail.after:
        return tail.after
    source, pooled = tail.pool.inputs[0], tail.pool.output
    inputs = tuple(source if name == pooled else name for name in tail.after[0].inputs)
    return [dataclasses.replace(tail.after[0], inputs=inputs), *tail.after[1:]]


def _sign_pool(graph: Graph, builder: GraphBuilder, tail: _Tail, signs: str) -> Node:
    """The maximum, of signs: any is +1 where what follows the maximum rises, all are where it falls."""
    assert tail.pool is not None and isinstance(tail.pool.op, Pool2d)
    channels = graph.types[tail.pool.output].shape[1]
    direction = torch.ones(channels)
    if tail.after:
        direction = change_of_float(graph, tail.after, tail.pool.output, channels).direction
    name = builder.add_constant(f"{tail.sign}_direction", SIGN_BITS.encode(direction), SIGN_BITS)
    op = tail.pool.op
    pool = SignPool2d(op.kernel, op.stride, op.window().padding)
    return Node(pool, (signs, name), tail.sign, tail.pool.layer)


def _bias_as_chain(builder: GraphBuilder, node: Node, source: str) -> list[Node]:
    """The layer's own bias as an addition, after the sums `source`; else what makes `source` the layer's output."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rank = len(builder.types[node.output].shape)
    channels = builder.types[node.output].shape[1]
    values = torch.zeros(channels) if bias is None else builder.constants[bias]
    name = builder.add_constant(f"{source}_bias", values.reshape(-1, *[1] * (rank - 2)))
    return [Node(Arithmetic("add"), (source, name), node.output, node.layer)]
