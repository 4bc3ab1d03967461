"""Let a dense layer after a flattened image read it channels last: its weights are permuted, not the image."""

from __future__ import annotations

import math

import torch

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Permute, Reshape


def permute_flattened_weights(graph: Graph) -> Graph:
    """reshape (batch, channels, height, width) -> (batch, features) -> dense with constant weights.

    becomes permute to (batch, height, width, channels) -> reshape -> dense with the columns of W in that order. On a
    channels-last image the permutation is a view.
    """
    users, producers = graph.users(), graph.producers()
    builder = GraphBuilder(graph)
    weights: dict[str, torch.Tensor] = {}  # output of a layer -> its permuted weight
    for node in graph.nodes:
        if _flattens(graph, node) and node.inputs[0] in producers:
            ordered = _ordered(graph, node, users[node.output])
            if ordered is not None:
                image = builder.add_node(Permute((0, 2, 3, 1)), node.inputs, f"{node.output}_pixels", node.layer)
                node = Node(node.op, (image,), node.output, node.layer)
                weights |= ordered
        elif node.output in weights:
            weight = node.inputs[1]
            name = builder.add_constant(f"{weight}_by_pixel", weights[node.output], graph.types[weight].format)
            node = Node(node.op, (node.inputs[0], name, *node.inputs[2:]), node.output, node.layer)
        builder.nodes.append(node)
    return builder.finish()


def _flattens(graph: Graph, node: Node) -> bool:
    """Whether it makes rows of images of several channels and pixels."""
    source, target = graph.types[node.inputs[0]].shape if node.inputs else (), graph.types[node.output].shape
    is_image = len(source) == 4 and source[2:] != (1, 1) and source[1] > 1
    return isinstance(node.op, Reshape) and is_image and target == (source[0], math.prod(source[1:]))


def _ordered(graph: Graph, node: Node, users: list[Node]) -> dict[str, torch.Tensor] | None:
    """The weights of all that read the rows, for rows in the order of channels last; None where one has none."""
    _, channels, height, width = graph.types[node.inputs[0]].shape
    order = torch.arange(channels * height * width).reshape(channels, height, width).permute(1, 2, 0).flatten()
    result: dict[str, torch.Tensor] = {}
    for user in users:
        weight = graph.constants.get(user.inputs[1]) if len(user.inputs) > 1 else None
        if weight is None or user.inputs[0] != node.output or user.inputs.count(node.output) != 1:
            return None
        ordered = user.op.permute_channels(order, weight, graph.node_types(user))
        if ordered is None:
            return None
        result[user.output] = ordered
    return result if result and node.output not in graph.outputs else None
