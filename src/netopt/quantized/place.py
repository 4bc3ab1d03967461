"""From what calibration has seen to the formats of a network: of the values, and of the weights of layers."""

from __future__ import annotations

import torch

from netopt.graph import Graph, Node
from netopt.numerics import CodeFormat
from netopt.quantization.fixed_point.calibration import MSE, Method, place_weight
from netopt.quantization.fixed_point.observer import Observer
from netopt.quantization.fixed_point.steps import Kind
from netopt.quantization.fixed_point.techniques import FixedPoint, Scales


def value_format(observer: Observer, bits: int, method: Method, scales: Scales) -> CodeFormat:
    """Unsigned where nothing that was seen is negative: that gains a bit. Codes of 7 bits are unsigned ones alone."""
    signed = observer.min < 0 or bits == 16
    bits = 8 if bits == 7 and signed else bits
    return method.place(observer, bits, signed, kind_of(scales))


def kind_of(scales: Scales) -> Kind:
    """Of steps; where the best is to be chosen, those that are tried first."""
    return "real" if scales == "real" else "power"


def weight_format(weight: torch.Tensor, node: Node, graph: Graph, technique: FixedPoint) -> CodeFormat:
    """A step for each output, where the outputs are the weight's first axis, as they are but for transposed layers."""
    by_channel = technique.per_channel and weight.shape[0] == graph.types[node.output].shape[_channel_axis(node, graph)]
    by_channel = by_channel and node.op.name != "conv_transpose2d"
    kind = kind_of(technique.scales)
    return place_weight(weight, technique.weights, by_channel=by_channel, method=MSE(), kind=kind)


def _channel_axis(node: Node, graph: Graph) -> int:
    """Where the outputs of a layer are in what it writes."""
    return 1 if len(graph.types[node.inputs[1]].shape) == 4 else -1
