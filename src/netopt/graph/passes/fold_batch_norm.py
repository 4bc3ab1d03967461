"""Fold batch normalization, which is a multiplication and an addition per channel, into a dense layer beside it.

With s and t from `BatchNorm.scale_and_shift`:
    before it:  s (W x + b) + t = (s W) x + (s b + t)
    after it:   W (s x + t) + b = (W s) x + (W t + b)
"""

from __future__ import annotations

import dataclasses

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.ops import Arithmetic, BatchNorm, Dense


def fold_batch_norm(graph: Graph) -> Graph:
    """Fold each into the dense layer before it, or into those after it, or else write it as mul and add."""
    while (node := next((n for n in graph.nodes if isinstance(n.op, BatchNorm)), None)) is not None:
        before, after = _dense_before(graph, node), _dense_after(graph, node)
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
            "batch normalization with computed statistics", layer=node.layer, fix="keep this layer in PyTorch"
        )
    weight, bias, mean, variance = (graph.constants[name].double() for name in node.inputs[1:])
    return node.op.scale_and_shift(weight, bias, mean, variance)


def _is_plain_dense(graph: Graph, node: Node) -> bool:
    """A dense layer with constant weights over (batch, features): its features are the channels of a BatchNorm."""
    return (
        isinstance(node.op, Dense)
        and all(name in graph.constants for name in node.inputs[1 : 2 + node.op.has_bias])
        and len(graph.types[node.output].shape) == 2
    )


def _dense_before(graph: Graph, node: Node) -> Node | None:
    dense = graph.producers().get(node.inputs[0])
    if dense is None or not _is_plain_dense(graph, dense) or node.inputs[0] in graph.outputs:
        return None
    assert isinstance(dense.op, Dense)
    bare = dense.op.activation is None and not dense.op.has_residual
    return dense if bare and len(graph.users()[node.inputs[0]]) == 1 else None


def _dense_after(graph: Graph, node: Node) -> list[Node]:
    """All users of the BatchNorm, if each is a dense layer that it is the input of; else none."""
    users = graph.users()[node.output]
    fits = node.output not in graph.outputs and all(
        _is_plain_dense(graph, user) and user.inputs[0] == node.output and user.inputs.count(node.output) == 1
        for user in users
    )
    return users if fits else []


def _with_weights(builder: GraphBuilder, dense: Node, x: str, weight: torch.Tensor, bias: torch.Tensor) -> Node:
    assert isinstance(dense.op, Dense)
    weight_name = builder.add_constant(f"{dense.inputs[1]}_folded", weight.float())
    bias_name = builder.add_constant(f"{dense.output}_bias_folded", bias.float())
    op = dataclasses.replace(dense.op, has_bias=True)
    residual = dense.inputs[dense.op.residual_index :]
    return Node(op, (x, weight_name, bias_name, *residual), dense.output, dense.layer)


def _weight_and_bias(graph: Graph, dense: Node) -> tuple[torch.Tensor, torch.Tensor]:
    assert isinstance(dense.op, Dense)
    weight = graph.constants[dense.inputs[1]].double()
    bias = graph.constants[dense.inputs[2]].double() if dense.op.has_bias else weight.new_zeros(weight.shape[0])
    return weight, bias


def _fold_into_previous(graph: Graph, node: Node, dense: Node) -> Graph:
    scale, shift = _scale_and_shift(graph, node)
    weight, bias = _weight_and_bias(graph, dense)
    builder = GraphBuilder(graph)
    folded = _with_weights(builder, dense, dense.inputs[0], scale[:, None] * weight, scale * bias + shift)
    folded = dataclasses.replace(folded, output=node.output)
    builder.nodes = [folded if n is node else n for n in graph.nodes if n is not dense]
    return builder.finish()


def _fold_into_next(graph: Graph, node: Node, users: list[Node]) -> Graph:
    scale, shift = _scale_and_shift(graph, node)
    builder = GraphBuilder(graph)
    for current in graph.nodes:
        if current in users:
            weight, bias = _weight_and_bias(graph, current)
            current = _with_weights(builder, current, node.inputs[0], weight * scale, weight @ shift + bias)
        if current is not node:
            builder.nodes.append(current)
    return builder.finish()


def _write_out(graph: Graph, node: Node) -> Graph:
    scale, shift = _scale_and_shift(graph, node)
    along_channels = (-1,) + (1,) * (len(graph.types[node.output].shape) - 2)
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
