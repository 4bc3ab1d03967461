"""Fold batch normalization, a multiplication and an addition per channel, into a dense layer or convolution beside it.

With s and t from `BatchNorm.scale_and_shift`:
    before it:  s (W x + b) + t = (s W) x + (s b + t)
    after it:   W (s x + t) + b = (W s) x + (W t + b)

A convolution with padding cannot take what comes before it: the padding is zero, not t.

Where no layer takes it, on images it becomes a layer itself: a depthwise convolution of one pixel, which respects
layouts, and into which the activation that follows fuses.
"""

from __future__ import annotations

import dataclasses

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Arithmetic, BatchNorm, Conv2d, ConvTranspose2d, Dense


def fold_batch_norm(graph: Graph) -> Graph:
    """Fold each into the layer before it, or into all those after it, or else write it out."""
    while (node := next((n for n in graph.nodes if isinstance(n.op, BatchNorm)), None)) is not None:
        before, after = _layer_before(graph, node), _layers_after(graph, node)
        if before is not None:
            graph = _fold_into_previous(graph, node, before)
        elif after:
            graph = _fold_into_next(graph, node, after)
        else:
            graph = _write_out(graph, node)
    return graph


def _scale_and_shift(graph: Graph, node: Node) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64, so that the folded weights are rounded once."""
    assert isinstance(node.op, BatchNorm)
    if not all(name in graph.constants for name in node.inputs[1:]):
        raise UnsupportedModel(
            "batch normalization with computed statistics",
            layer=node.layer,
            fix="lower with fallback=True, which runs this layer in PyTorch",
        )
    weight, bias, mean, variance = (graph.constants[name].double() for name in node.inputs[1:])
    return node.op.scale_and_shift(weight, bias, mean, variance)


def _has_channels(graph: Graph, node: Node) -> bool:
    """A layer with constant weights whose outputs are the channels of a BatchNorm.

    A convolution, or a dense layer over (batch, features).
    """
    if not isinstance(node.op, Dense | Conv2d | ConvTranspose2d):
        return False
    known = all(name in graph.constants for name in node.inputs[1 : 2 + node.op.has_bias])
    return known and (not isinstance(node.op, Dense) or len(graph.types[node.output].shape) == 2)


def _takes_shift(node: Node) -> bool:
    """Whether a layer can absorb a shift of its input."""
    return isinstance(node.op, Dense) or (
        isinstance(node.op, Conv2d) and node.op.groups == 1 and not any(node.op.padding)
    )


def _layer_before(graph: Graph, node: Node) -> Node | None:
    layer = graph.producers().get(node.inputs[0])
    if layer is None or not _has_channels(graph, layer) or node.inputs[0] in graph.outputs:
        return None
    assert isinstance(layer.op, Dense | Conv2d | ConvTranspose2d)
    bare = layer.op.activation is None and not layer.op.has_residual
    return layer if bare and len(graph.users()[node.inputs[0]]) == 1 else None


def _layers_after(graph: Graph, node: Node) -> list[Node]:
    """All users of the BatchNorm, if each is a layer that can take it in; else none."""
    users = graph.users()[node.output]
    fits = node.output not in graph.outputs and all(
        _has_channels(graph, user)
        and _takes_shift(user)
        and user.inputs[0] == node.output
        and user.inputs.count(node.output) == 1
        for user in users
    )
    return users if fits else []


def _with_weights(builder: GraphBuilder, layer: Node, x: str, weight: torch.Tensor, bias: torch.Tensor) -> Node:
    assert isinstance(layer.op, Dense | Conv2d | ConvTranspose2d)
    weight_name = builder.add_constant(f"{layer.inputs[1]}_folded", weight.float())
    bias_name = builder.add_constant(f"{layer.output}_bias_folded", bias.float())
    op = dataclasses.replace(layer.op, has_bias=True)
    residual = layer.inputs[layer.op.residual_index :]
    return Node(op, (x, weight_name, bias_name, *residual), layer.output, layer.layer)


def _weight_and_bias(graph: Graph, layer: Node) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(layer.op, Dense | Conv2d | ConvTranspose2d)
    weight = graph.constants[layer.inputs[1]].double()
    outputs = graph.types[layer.output].shape[1]
    bias = graph.constants[layer.inputs[2]].double() if layer.op.has_bias else weight.new_zeros(outputs)
    return weight, bias


def _fold_into_previous(graph: Graph, node: Node, layer: Node) -> Graph:
    scale, shift = _scale_and_shift(graph, node)
    weight, bias = _weight_and_bias(graph, layer)
    builder = GraphBuilder(graph)
    folded = _with_weights(builder, layer, layer.inputs[0], _scaled_outputs(layer, weight, scale), scale * bias + shift)
    folded = dataclasses.replace(folded, output=node.output)
    builder.nodes = [folded if n is node else n for n in graph.nodes if n is not layer]
    return builder.finish()


def _scaled_outputs(layer: Node, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The weight with each output multiplied by its scale."""
    if not isinstance(layer.op, ConvTranspose2d):
        return scale.reshape(-1, *[1] * (weight.dim() - 1)) * weight
    groups = layer.op.groups
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    return (grouped * scale.reshape(groups, 1, -1, 1, 1)).reshape(weight.shape)


def _fold_into_next(graph: Graph, node: Node, users: list[Node]) -> Graph:
    scale, shift = _scale_and_shift(graph, node)
    builder = GraphBuilder(graph)
    for current in graph.nodes:
        if current in users:
            weight, bias = _weight_and_bias(graph, current)
            by_input = (-1, *[1] * (weight.dim() - 2))
            shifted = (weight * shift.reshape(by_input)).flatten(1).sum(1) + bias
            current = _with_weights(builder, current, node.inputs[0], weight * scale.reshape(by_input), shifted)
        if current is not node:
            builder.nodes.append(current)
    return builder.finish()


def _write_out(graph: Graph, node: Node) -> Graph:
    """As a depthwise convolution of images, or else as a multiplication and an addition."""
    scale, shift = _scale_and_shift(graph, node)
    shape = graph.types[node.output].shape
    if len(shape) == 4 and shape[1] > 1:
        return _write_as_convolution(graph, node, scale.float(), shift.float())
    along_channels = (-1,) + (1,) * (len(shape) - 2)
    builder = GraphBuilder(graph)
    scale_name = builder.add_constant(f"{node.output}_scale", scale.float().reshape(along_channels))
    shift_name = builder.add_constant(f"{node.output}_shift", shift.float().reshape(along_channels))
    for current in graph.nodes:
        if current is node:
            scaled = builder.add_node(
                Arithmetic("mul"), (node.inputs[0], scale_name), f"{node.output}_scaled", node.layer
            )
            current = Node(Arithmetic("add"), (scaled, shift_name), node.output, node.layer)
        builder.nodes.append(current)
    return builder.finish()


def _write_as_convolution(graph: Graph, node: Node, scale: torch.Tensor, shift: torch.Tensor) -> Graph:
    builder = GraphBuilder(graph)
    weight = builder.add_constant(f"{node.output}_scale", scale.reshape(-1, 1, 1, 1))
    bias = builder.add_constant(f"{node.output}_shift", shift)
    op = Conv2d(groups=len(scale), has_bias=True)
    written = Node(op, (node.inputs[0], weight, bias), node.output, node.layer)
    builder.nodes = [written if current is node else current for current in graph.nodes]
    return builder.finish()
