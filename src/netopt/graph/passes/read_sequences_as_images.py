"""Let ops between 1-D convolutions, which are convolutions of images of height 1, read and write such images, too.

A sequence (batch, channels, length) lies in memory in another order than an image, of which the channels lie next to
each other. Each change between the two is a copy.
"""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.passes.drop_identities import drop_identities
from netopt.numerics import Shape
from netopt.ops import Permute, Reduce, Reshape

# Of an image that lies channels last, a view of its memory.
_CHANNELS_LAST = Permute((0, 2, 3, 1))


def read_sequences_as_images(graph: Graph) -> Graph:
    """Compute on images what is computed on sequences that are made of images; who reads a sequence is given one."""
    builder = GraphBuilder(graph)
    images: dict[str, str] = {}
    for node in graph.nodes:
        image = _known_image(node, graph, images)
        if image is not None:
            images[node.output] = image
            builder.nodes.append(node)
        elif _is_sequence(graph.types[node.output].shape) and any(name in images for name in node.inputs):
            _rewrite(node, graph, builder, images)
        else:
            _read_as_image(node, graph, builder, images)
    if not images:
        return graph
    return drop_identities(builder.finish())


def _is_sequence(shape: Shape) -> bool:
    return len(shape) == 3


def _as_image(shape: Shape) -> Shape:
    """The shape with a height of 1, which broadcasts with others as the shape does."""
    return shape if len(shape) < 2 else (*shape[:-1], 1, shape[-1])


def _known_image(node: Node, graph: Graph, images: dict[str, str]) -> str | None:
    """The image of height 1 that a node makes a sequence of."""
    if not isinstance(node.op, Reshape):
        return None
    source, target = graph.types[node.inputs[0]].shape, graph.types[node.output].shape
    return node.inputs[0] if _is_sequence(target) and source == _as_image(target) else None


def _read_as_image(node: Node, graph: Graph, builder: GraphBuilder, images: dict[str, str]) -> None:
    """A node that makes an image of a sequence reads the image that the sequence was made of."""
    if isinstance(node.op, Reshape) and node.inputs[0] in images:
        image = images[node.inputs[0]]
        if graph.types[node.output].shape == builder.types[image].shape:
            node = Node(node.op, (image,), node.output, node.layer)
    builder.nodes.append(node)


def _rewrite(node: Node, graph: Graph, builder: GraphBuilder, images: dict[str, str]) -> None:
    """Add what computes the node's output of images, and makes it a sequence again; or the node as it is."""
    if isinstance(node.op, Reduce):
        image = _reduced(node, builder, images)
    elif node.op == Permute((0, 2, 1)):
        last = builder.add_node(_CHANNELS_LAST, (images[node.inputs[0]],), f"{node.output}_last", node.layer)
        builder.nodes.append(Node(Reshape(graph.types[node.output].shape), (last,), node.output, node.layer))
        return
    else:
        image = _computed(node, graph, builder, images)
    if image is None:
        builder.nodes.append(node)
        return
    images[node.output] = image
    builder.nodes.append(Node(Reshape(graph.types[node.output].shape), (image,), node.output, node.layer))


def _computed(node: Node, graph: Graph, builder: GraphBuilder, images: dict[str, str]) -> str | None:
    op = node.op.with_height(graph.node_types(node))
    if op is None:
        return None
    constants = set(node.op.constant_operands(graph.node_types(node)))
    inputs = tuple(
        name if index in constants else _image_of(name, node, builder, images) for index, name in enumerate(node.inputs)
    )
    return builder.add_node(op, inputs, f"{node.output}_image", node.layer)


def _image_of(name: str, node: Node, builder: GraphBuilder, images: dict[str, str]) -> str:
    """An operand of an op of sequences, for the op of images."""
    if name in images:
        return images[name]
    shape = builder.types[name].shape
    if _as_image(shape) == shape:
        return name
    if name in builder.constants:
        value = builder.constants[name].reshape(_as_image(shape))
        return builder.add_constant(f"{name}_image", value, builder.types[name].format)
    return builder.add_node(Reshape(_as_image(shape)), (name,), f"{name}_image", node.layer)


# For the axes of a sequence, those of (batch, height, length, channels).
_REDUCED = {(1,): (3, 1), (2,): (1, 2), (1, 2): (1, 3)}


def _reduced(node: Node, builder: GraphBuilder, images: dict[str, str]) -> str | None:
    """A reduction of what lies in memory, seen with the channels last: nothing is copied."""
    assert isinstance(node.op, Reduce)
    axes = _REDUCED.get(node.op.axes)
    if axes is None:
        return None
    image = images[node.inputs[0]]
    last = builder.add_node(_CHANNELS_LAST, (image,), f"{node.output}_last", node.layer)
    reduced = builder.add_node(Reduce(node.op.function, *axes), (last,), f"{node.output}_reduced", node.layer)
    batch, channels, _, length = builder.types[image].shape
    kept = (batch, 1 if 1 in node.op.axes else channels, 1, 1 if 2 in node.op.axes else length)
    return builder.add_node(Reshape(kept), (reduced,), f"{node.output}_image", node.layer)
