"""Make a chain of reshapes and permutations one permutation between two reshapes, which are views."""

from __future__ import annotations

import math

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.numerics import Shape
from netopt.ops import Op, Permute, Reshape
from netopt.ops.strides import Extent, Strides


def simplify_views(graph: Graph) -> Graph:
    """Each chain of reshapes and permutations becomes at most reshape -> permute -> reshape.

    The first reshape is there only where axes are taken apart. Axes of size 1 move for free, and the permutation of a
    flattened image, (batch, channels, pixels) to (batch, pixels, channels), becomes that of the image.
    """
    users, producers = graph.users(), graph.producers()
    builder = GraphBuilder(graph)
    renames: dict[str, str] = {}
    for node in graph.nodes:
        op, inputs = node.op, node.inputs
        if isinstance(op, Reshape | Permute):
            chain = _chain(node, graph, producers, users)
            source = renames.get(chain[0].inputs[0], chain[0].inputs[0])
            ops = _simplest(chain, graph.types[source].shape)
            if not ops:
                renames[node.output] = source
                continue
            if ops != [link.op for link in chain]:
                for between in ops[:-1]:
                    source = builder.add_node(between, (source,), f"{node.output}_{between.name}", node.layer)
                op, inputs = ops[-1], (source,)
        inputs = tuple(renames.get(name, name) for name in inputs)
        builder.nodes.append(Node(op, inputs, node.output, node.layer))
    builder.outputs = tuple(renames.get(name, name) for name in graph.outputs)
    return builder.finish()


def _chain(node: Node, graph: Graph, producers: dict[str, Node], users: dict[str, list[Node]]) -> list[Node]:
    """The reshapes and permutations that end with the node, in order."""
    chain = [node]
    while (before := producers.get(chain[0].inputs[0])) is not None and _is_link(before, graph, users):
        chain.insert(0, before)
    return chain


def _is_link(node: Node, graph: Graph, users: dict[str, list[Node]]) -> bool:
    """A permutation that others read, too, is a copy that is made once."""
    shared = len(users[node.output]) > 1 or node.output in graph.outputs
    return isinstance(node.op, Reshape) or (isinstance(node.op, Permute) and not shared)


def _simplest(chain: list[Node], shape: Shape) -> list[Op]:
    """The ops that do what the chain does to a value of this shape; none where that is nothing."""
    strides: Strides | None = Strides.whole(shape)
    for link in chain:
        strides = link.op.strided(strides) if strides is not None else None
    if strides is None:
        return [link.op for link in chain]
    parts = [part for axis in strides.axes for part in axis]
    split = _split(shape, parts)
    positions = {stride: axis for axis, (size, stride) in enumerate(_strided(split)) if size > 1}
    order = [positions[stride] for _, stride in parts]
    ops: list[Op] = []
    if order != sorted(order):
        # Axes of size 1 go first: an image of one row or of a batch of one is permuted like any other.
        axes = (*(axis for axis, size in enumerate(split) if size == 1), *order)
        ops = [*([Reshape(split)] if split != shape else []), Permute(axes)]
        shape = tuple(split[axis] for axis in axes)
    return ops if strides.shape == shape else [*ops, Reshape(strides.shape)]


def _strided(shape: Shape) -> list[Extent]:
    return [(size, math.prod(shape[axis + 1 :])) for axis, size in enumerate(shape)]


def _split(shape: Shape, parts: list[Extent]) -> Shape:
    """`shape`, with the axes taken apart of which there are several parts."""
    result: list[int] = []
    for size, stride in _strided(shape):
        pieces = sorted((p for p in parts if stride <= p[1] < size * stride), key=lambda part: -part[1])
        result += [piece for piece, _ in pieces] if size > 1 else [1]
    return tuple(result)
