"""Make layers whose weights are all +1 and -1 binary ops, and keep what they read and write in bits where that can be.

    Sign -> conv2d or dense      reads packed signs; sums are whole numbers
    ... -> scales and shifts     of channels, and batch normalization, become one scale and one bias at the layer's end
    ... -> Sign -> binary layer  with all that stands between: an integer threshold, and packed signs are passed on;
                                 a maximum over windows becomes one of signs
    chain -> Sign                on floating numbers: a threshold for each channel

Layers on floating numbers keep their weights in one bit, too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.passes.monotone import change_of_float, change_of_integer, is_monotone, operand
from netopt.numerics import INT32, SIGN_BITS, SIGNS
from netopt.ops import (
    Arithmetic,
    BatchNorm,
    BinaryConv2d,
    BinaryDense,
    Conv2d,
    Dense,
    Pad,
    Pool2d,
    Reshape,
    Sign,
    SignPool2d,
)
from netopt.ops.spatial import Sides


def binarize_layers(graph: Graph) -> Graph:
    """See the module."""
    graph = _sign_after_reshape(graph)
    graph = _own_signs(graph)
    graph = _binary_ops(graph)
    graph = _integer_thresholds(graph)
    graph = _scales(graph)
    return _float_thresholds(graph)


# --- which layers


def is_binary(graph: Graph, node: Node) -> bool:
    """Whether it is a layer with weights of +1 and -1 that has a binary op.

    Not one whose outputs each have a single weight: that is a scale, and no sum.
    """
    if not isinstance(node.op, Conv2d | Dense) or node.op.activation is not None or node.op.has_residual:
        return False
    weight = graph.constants.get(node.inputs[1])
    known = not node.op.has_bias or node.inputs[2] in graph.constants
    if weight is None or not known or weight[0].numel() == 1:
        return False
    return bool((weight.abs() == 1).all())


def _takes_bits(graph: Graph, node: Node) -> bool:
    """Whether the layer can read packed signs: with groups, each must have whole words of channels."""
    if not is_binary(graph, node) or _is_dense_on_images(graph, node):
        return False
    if not isinstance(node.op, Conv2d) or node.op.groups == 1:
        return True
    outputs, channels = graph.types[node.inputs[1]].shape[:2]
    return channels % 32 == 0 and outputs // node.op.groups % 32 == 0


def _is_dense_on_images(graph: Graph, node: Node) -> bool:
    """Whether it is a dense layer on four axes: its channels are the last, where all else takes axis 1 for them."""
    return isinstance(node.op, Dense | BinaryDense) and len(graph.types[node.output].shape) == 4


def _reads_bits(graph: Graph, user: Node, signs: str, users: dict[str, list[Node]]) -> bool:
    """Whether `user` can read `signs` packed: a layer, or padding by +1 before layers."""
    if user.inputs[0] != signs or user.inputs.count(signs) != 1:
        return False
    if _ones_around(user) is None:
        return _takes_bits(graph, user)
    readers = users[user.output]
    return (
        user.output not in graph.outputs
        and bool(readers)
        and all(
            _takes_bits(graph, reader)
            and isinstance(reader.op, Conv2d)
            and reader.inputs[0] == user.output
            and not any(reader.op.padding)
            for reader in readers
        )
    )


def _ones_around(node: Node) -> Sides | None:
    """(top, bottom, left, right) of a node that puts +1 around images and does nothing else; else None."""
    op = node.op
    if not isinstance(op, Pad) or op.mode != "constant" or op.value != 1.0:
        return None
    return dataclasses.replace(op, value=0.0).zero_sides


# --- steps


def _sign_after_reshape(graph: Graph) -> Graph:
    """sign -> reshape becomes reshape -> sign where all that read the signs reshape them: a sequence to an image."""
    users = graph.users()
    builder = GraphBuilder(graph)
    moved: dict[str, str] = {}
    for node in graph.nodes:
        readers = users[node.output]
        plain = isinstance(node.op, Sign) and not node.op.has_threshold and node.output not in graph.outputs
        if plain and readers and all(isinstance(reader.op, Reshape) for reader in readers):
            moved[node.output] = node.inputs[0]
            continue
        if node.inputs and node.inputs[0] in moved:
            shaped = builder.add_node(node.op, (moved[node.inputs[0]],), f"{node.output}_of", node.layer)
            node = Node(Sign(), (shaped,), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _own_signs(graph: Graph) -> Graph:
    """Signs that layers read packed are computed apart from those that something else reads as numbers."""
    users = graph.users()
    builder = GraphBuilder(graph)
    packed: dict[tuple[str, str], str] = {}
    for node in graph.nodes:
        inputs = tuple(packed.get((name, node.output), name) for name in node.inputs)
        builder.nodes.append(dataclasses.replace(node, inputs=inputs))
        if not isinstance(node.op, Sign):
            continue
        readers = [user for user in users[node.output] if _reads_bits(graph, user, node.output, users)]
        if not readers:
            continue
        if len(readers) < len(users[node.output]) or node.output in graph.outputs:
            copy = builder.add_node(node.op, node.inputs, f"{node.output}_packed", node.layer)
            packed |= {(node.output, reader.output): copy for reader in readers}
        else:
            copy = node.output
        builder.types[copy] = dataclasses.replace(builder.types[copy], format=SIGNS)
    return builder.finish()


def _binary_ops(graph: Graph) -> Graph:
    """Each layer that is binary becomes a binary op, with the padding by +1 before it; the bias stays."""
    builder = GraphBuilder(graph)
    around: dict[str, tuple[str, Sides]] = {}
    for node in graph.nodes:
        sides = _ones_around(node)
        if sides is not None and graph.types[node.inputs[0]].format == SIGNS:
            around[node.output] = (node.inputs[0], sides)
            continue
        x = node.inputs[0] if node.inputs else ""
        reads = x in around or (x and graph.types[x].format == SIGNS)
        if is_binary(graph, node) and (reads or _keeps_bits(graph, node)):
            signs = SIGN_BITS.encode(graph.constants[node.inputs[1]])
            weight = builder.add_constant(f"{node.inputs[1]}_signs", signs, SIGN_BITS)
            x, sides = around.get(x, (x, None))
            node = Node(_binary_op(node, sides), (x, weight, *node.inputs[2:]), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _keeps_bits(graph: Graph, node: Node) -> bool:
    """Whether a layer on floating numbers is to keep its weights in bits: not one of a few weights an output."""
    return not isinstance(node.op, Conv2d) or graph.types[node.inputs[1]].shape[1] > 1 or node.op.groups == 1


def _binary_op(node: Node, ones: Sides | None) -> BinaryConv2d | BinaryDense:
    op = node.op
    if isinstance(op, Dense):
        return BinaryDense(has_bias=op.has_bias)
    assert isinstance(op, Conv2d)
    padding = op.padding if ones is None else ones
    return BinaryConv2d(op.stride, padding, op.dilation, op.groups, ones is not None, has_bias=op.has_bias)


def _integer_thresholds(graph: Graph) -> Graph:
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
    before = _chain(graph, node.output, users, channels)
    after: list[Node] = []
    last = before[-1].output if before else node.output
    pool = _only_user(graph, last, users)
    if pool is not None and isinstance(pool.op, Pool2d) and pool.op.function == "max" and pool.op.dilation == (1, 1):
        after = _chain(graph, pool.output, users, channels)
        last = after[-1].output if after else pool.output
    else:
        pool = None
    sign = _only_user(graph, last, users)
    if sign is None or sign.op != Sign() or graph.types[sign.output].format != SIGNS:
        return None
    return _End(before, pool, after, sign.output)


def _with_threshold(graph: Graph, builder: GraphBuilder, node: Node, end: _End) -> Node:
    """The layer with the threshold at which the sign of what follows changes."""
    assert isinstance(node.op, BinaryConv2d | BinaryDense)
    weight, source = graph.constants[node.inputs[1]], f"{node.output}_sums"
    chain = [*_bias_as_chain(builder, node, source), *end.before, *_relinked(end)]
    types = {**graph.types, source: graph.types[node.output]}
    sums = dataclasses.replace(graph, types=types, constants={**graph.constants, **builder.constants})
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


def _only_user(graph: Graph, value: str, users: dict[str, list[Node]]) -> Node | None:
    return users[value][0] if len(users[value]) == 1 and value not in graph.outputs else None


def _chain(graph: Graph, value: str, users: dict[str, list[Node]], channels: int) -> list[Node]:
    """The monotone functions that follow a value one after the other, each the only one to read what is before it."""
    chain: list[Node] = []
    while (user := _only_user(graph, value, users)) is not None and is_monotone(graph, user, value, channels):
        chain.append(user)
        value = user.output
    return chain


@dataclass(frozen=True)
class _Affine:
    """y = scale x + shift for each channel, in float64."""

    scale: torch.Tensor
    shift: torch.Tensor


def _scales(graph: Graph) -> Graph:
    """Scales and shifts after a binary layer become its scale and bias, rounded once."""
    users = graph.users()
    builder = GraphBuilder(graph)
    replaced: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, BinaryConv2d | BinaryDense) or op.has_threshold or _is_dense_on_images(graph, node):
            continue
        channels, value = len(graph.constants[node.inputs[1]]), node.output
        bias = graph.constants[node.inputs[2]].double() if op.has_bias else torch.zeros(channels, dtype=torch.float64)
        total = _Affine(torch.ones(channels, dtype=torch.float64), bias)
        links: list[Node] = []
        while (user := _only_user(graph, value, users)) is not None:
            step = _affine(graph, user, value, channels)
            if step is None:
                break
            total = _Affine(total.scale * step.scale, total.shift * step.scale + step.shift)
            links.append(user)
            value = user.output
        if not links:
            continue
        has_bias = op.has_bias or bool((total.shift != 0).any())
        names = [builder.add_constant(f"{node.output}_scale", total.scale.float())]
        if has_bias:
            names.append(builder.add_constant(f"{node.output}_bias", total.shift.float()))
        fused = dataclasses.replace(op, has_scale=True, has_bias=has_bias)
        replaced[value] = Node(fused, (*node.inputs[:2], *names), value, node.layer)
        dropped |= {node.output, *(link.output for link in links[:-1])}
    builder.nodes = [replaced.get(node.output, node) for node in graph.nodes if node.output not in dropped]
    return builder.finish()


def _affine(graph: Graph, node: Node, value: str, channels: int) -> _Affine | None:
    """A node as a scale and a shift of each channel of `value`; None where it is no such thing."""
    if isinstance(node.op, BatchNorm):
        if len(graph.types[value].shape) not in (2, 4) or not is_monotone(graph, node, value, channels):
            return None
        return _Affine(*node.op.scale_and_shift(*(graph.constants[name].double() for name in node.inputs[1:])))
    number = operand(graph, node, value, channels) if isinstance(node.op, Arithmetic) else None
    if number is None:
        return None
    assert isinstance(node.op, Arithmetic)
    number, comes_first = number.double(), node.inputs[0] == value
    one, zero = torch.ones_like(number), torch.zeros_like(number)
    forms = {
        "add": _Affine(one, number),
        "sub": _Affine(one, -number) if comes_first else _Affine(-one, number),
        "mul": _Affine(number, zero),
    }
    if node.op.function == "div" and comes_first and bool((number != 0).all()):
        return _Affine(1 / number, zero)
    return forms.get(node.op.function)


def _float_thresholds(graph: Graph) -> Graph:
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
        while (link := producers.get(value)) is not None and _only_user(graph, value, users) is not None:
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
