"""Recognize a channel shuffle that the model writes as reshape, permute and reshape."""

from __future__ import annotations

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import ChannelShuffle, Permute, Reshape


def merge_channel_shuffle(graph: Graph) -> Graph:
    """reshape to (batch, groups, channels / groups, ...) -> swap axes 1 and 2 -> reshape back becomes one node.

    What the steps between still have readers for stays; dead code is dropped later.
    """
    producers = graph.producers()
    builder = GraphBuilder(graph)
    for node in graph.nodes:
        source = _shuffled(graph, node, producers)
        if source is not None:
            op = ChannelShuffle(graph.types[producers[node.inputs[0]].inputs[0]].shape[1])
            node = Node(op, (source,), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _shuffled(graph: Graph, node: Node, producers: dict[str, Node]) -> str | None:
    """The image whose channels the node, the last of three, shuffles, if it does."""
    swap = producers.get(node.inputs[0]) if isinstance(node.op, Reshape) else None
    if swap is None or not isinstance(swap.op, Permute) or swap.op.axes[:3] != (0, 2, 1):
        return None
    split = producers.get(swap.inputs[0])
    if split is None or not isinstance(split.op, Reshape):
        return None
    image, grouped = graph.types[split.inputs[0]].shape, graph.types[split.output].shape
    fits = len(image) == 4 and graph.types[node.output].shape == image and image[0] == grouped[0]
    in_order = swap.op.axes[3:] == tuple(range(3, len(grouped)))
    return split.inputs[0] if fits and in_order and grouped[1] * grouped[2] == image[1] else None
