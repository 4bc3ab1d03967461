"""Fold batch normalization, a multiplication and an addition per channel, into the layer beside it.

With s and t from `BatchNorm.scale_and_shift`:
    after a layer:   s (W x + b) + t = (s W) x + (s b + t)
    before a layer:  W (s x + t) + b = (W s) x + (W t + b)

A convolution with padding cannot take what comes before it: the padding is zero, not t. `Op.fold_after` and
`Op.fold_before` tell what a layer can take.

Where no layer takes it, on images it becomes a layer itself: a depthwise convolution of one pixel, which respects
layouts, and into which the activation that follows fuses.
"""

from __future__ import annotations

import dataclasses

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.edit import GraphEditor
from netopt.graph.graph import Graph, Node
from netopt.ops import Affine, Arithmetic, BatchNorm, Conv2d
from netopt.ops.epilogue import EpilogueOp

Folded = tuple[torch.Tensor, torch.Tensor]  # weight and bias, in float64


def fold_batch_norm(graph: Graph) -> Graph:
    """Fold each into the layer before it, or into all those after it, or else write it out."""
    editor = GraphEditor(graph)
    for node in editor.walk():
        if not isinstance(node.op, BatchNorm):
            continue
        affine = _affine(editor, node)
        if not _fold_into_previous(editor, node, affine) and not _fold_into_next(editor, node, affine):
            _write_out(editor, node, affine)
    return editor.finish()


def _affine(editor: GraphEditor, node: Node) -> Affine:
    """In float64, so that the folded weights are rounded once."""
    assert isinstance(node.op, BatchNorm)
    if not all(name in editor.constants for name in node.inputs[1:]):
        raise UnsupportedModel(
            "batch normalization with computed statistics",
            layer=node.layer,
            fix="lower with fallback=True, which runs this layer in PyTorch",
        )
    weight, bias, mean, variance = (editor.constants[name].double() for name in node.inputs[1:])
    return Affine(*node.op.scale_and_shift(weight, bias, mean, variance))


def _fold_into_previous(editor: GraphEditor, node: Node, affine: Affine) -> bool:
    """Fold it into the layer that it reads, if nothing else reads that."""
    layer = editor.producer(node.inputs[0])
    if layer is None or editor.only_user(layer.output) is None:
        return False
    folded = _folded(editor, layer, affine, after=True)
    if folded is None:
        return False
    editor.replace(dataclasses.replace(_with_weights(editor, layer, layer.inputs[0], folded), output=node.output))
    editor.remove(layer)
    return True


def _fold_into_next(editor: GraphEditor, node: Node, affine: Affine) -> bool:
    """Fold it into all layers that read it, if nothing else does."""
    users = editor.users(node.output)
    if not users or node.output in editor.outputs:
        return False
    if not all(user.inputs[0] == node.output and user.inputs.count(node.output) == 1 for user in users):
        return False
    folded = {user.output: _folded(editor, user, affine, after=False) for user in users}
    taken = {name: parts for name, parts in folded.items() if parts is not None}
    if len(taken) < len(users):
        return False
    for user in users:
        editor.replace(_with_weights(editor, user, node.inputs[0], taken[user.output]))
    editor.remove(node)
    return True


def _folded(editor: GraphEditor, layer: Node, affine: Affine, *, after: bool) -> Folded | None:
    """The layer's weight and bias with what comes after it, or before it; None where it cannot take that."""
    op = layer.op
    if not isinstance(op, EpilogueOp):
        return None
    names = (layer.inputs[1], *layer.inputs[op.bias_index : op.residual_index])
    if not all(name in editor.constants for name in names):
        return None
    weight, *rest = (editor.constants[name].double() for name in names)
    bias = rest[0] if rest else weight.new_zeros(editor.types[layer.output].shape[1])
    fold = op.fold_after if after else op.fold_before
    return fold(affine, weight, bias, editor.node_types(layer))


def _with_weights(editor: GraphEditor, layer: Node, x: str, folded: Folded) -> Node:
    assert isinstance(layer.op, EpilogueOp)
    weight, bias = folded
    weight_name = editor.add_constant(f"{layer.inputs[1]}_folded", weight.float())
    bias_name = editor.add_constant(f"{layer.output}_bias_folded", bias.float())
    residual = layer.inputs[layer.op.residual_index :]
    return Node(layer.op.with_bias(), (x, weight_name, bias_name, *residual), layer.output, layer.layer)


def _write_out(editor: GraphEditor, node: Node, affine: Affine) -> None:
    """As a depthwise convolution of images, or else as a multiplication and an addition."""
    shape = editor.types[node.output].shape
    scale, shift = affine.scale.float(), affine.shift.float()
    is_image = len(shape) == 4 and shape[1] > 1
    if is_image:
        scale = scale.reshape(-1, 1, 1, 1)
    else:
        scale, shift = (value.reshape(-1, *[1] * (len(shape) - 2)) for value in (scale, shift))
    x = node.inputs[0]
    names = editor.add_constant(f"{node.output}_scale", scale), editor.add_constant(f"{node.output}_shift", shift)
    if is_image:
        editor.replace(Node(Conv2d(groups=len(scale), has_bias=True), (x, *names), node.output, node.layer))
    else:
        scaled = editor.insert_before(node, Arithmetic("mul"), (x, names[0]), f"{node.output}_scaled")
        editor.replace(Node(Arithmetic("add"), (scaled, names[1]), node.output, node.layer))
