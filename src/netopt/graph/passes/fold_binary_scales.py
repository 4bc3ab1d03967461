"""Make the scales and shifts of channels that follow a binary layer its own: one scale and one bias."""

from __future__ import annotations

import dataclasses

import torch

from netopt.graph.graph import Graph, GraphBuilder, Node
from netopt.graph.passes.binary import is_dense_on_images, only_user
from netopt.graph.passes.monotone import is_monotone, operand
from netopt.ops import Affine, Arithmetic, BatchNorm, BinaryConv2d, BinaryDense


def fold_binary_scales(graph: Graph) -> Graph:
    """Scales and shifts after a binary layer become its scale and bias, rounded once."""
    users = graph.users()
    builder = GraphBuilder(graph)
    replaced: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in graph.nodes:
        op = node.op
        if not isinstance(op, BinaryConv2d | BinaryDense) or op.has_threshold or is_dense_on_images(graph, node):
            continue
        channels, value = len(graph.constants[node.inputs[1]]), node.output
        bias = graph.constants[node.inputs[2]].double() if op.has_bias else torch.zeros(channels, dtype=torch.float64)
        total = Affine(torch.ones(channels, dtype=torch.float64), bias)
        links: list[Node] = []
        while (user := only_user(graph, value, users)) is not None:
            step = _affine(graph, user, value, channels)
            if step is None:
                break
            total = Affine(total.scale * step.scale, total.shift * step.scale + step.shift)
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


def _affine(graph: Graph, node: Node, value: str, channels: int) -> Affine | None:
    """A node as a scale and a shift of each channel of `value`; None where it is no such thing."""
    if isinstance(node.op, BatchNorm):
        if len(graph.types[value].shape) not in (2, 4) or not is_monotone(graph, node, value, channels):
            return None
        return Affine(*node.op.scale_and_shift(*(graph.constants[name].double() for name in node.inputs[1:])))
    number = operand(graph, node, value, channels) if isinstance(node.op, Arithmetic) else None
    if number is None:
        return None
    assert isinstance(node.op, Arithmetic)
    number, comes_first = number.double(), node.inputs[0] == value
    one, zero = torch.ones_like(number), torch.zeros_like(number)
    forms = {
        "add": Affine(one, number),
        "sub": Affine(one, -number) if comes_first else Affine(-one, number),
        "mul": Affine(number, zero),
    }
    if node.op.function == "div" and comes_first and bool((number != 0).all()):
        return Affine(1 / number, zero)
    return forms.get(node.op.function)
