"""What wins accuracy back without training: like ranges of channels, corrected biases, learned rounding."""

from __future__ import annotations

from collections.abc import Callable

import torch

from netopt.console import progress
from netopt.example import Example
from netopt.graph import Node
from netopt.ops import Conv2d, Dense
from netopt.ops.epilogue import EpilogueOp
from netopt.quantization.fixed_point.adaround import adaround
from netopt.quantization.fixed_point.bias_correction import bias_correction
from netopt.quantization.fixed_point.equalize import equalize
from netopt.quantization.fixed_point.quantizer import Quantizer
from netopt.quantized.assign import layers_of
from netopt.quantized.network import QuantizedNetwork

# Rounds over all pairs of layers: three layers in a row, as around a depthwise one, depend on each other.
_ROUNDS = 3

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def equalize_layers(network: QuantizedNetwork) -> int:
    """Give neighbouring layers channels of like ranges, in steps of powers of two: no output changes at all.

    A pair is a layer whose output one other alone reads, with a ReLU between, or nothing. How many pairs there are.

    Source: Nagel et al., 1906.04721, section 4.1.
    """
    pairs = _pairs(network)
    for _ in range(_ROUNDS):
        for first, second in pairs:
            op = first.op
            assert isinstance(op, Conv2d | Dense)
            bias = first.inputs[op.bias_index] if op.has_bias else None
            groups = second.op.groups if isinstance(second.op, Conv2d) else 1
            weight1, bias1, weight2 = equalize(
                network.weight(first.inputs[1]),
                None if bias is None else network.weight(bias),
                network.weight(second.inputs[1]),
                groups=groups,
                kind="power",
            )
            network.set_weight(first.inputs[1], weight1)
            network.set_weight(second.inputs[1], weight2)
            if bias is not None and bias1 is not None:
                network.set_weight(bias, bias1)
    return len(pairs)


def _pairs(network: QuantizedNetwork) -> list[tuple[Node, Node]]:
    graph = network.example_graph
    users, layers = graph.users(), {node.output: node for node in layers_of(graph)}
    names = [name for node in layers.values() for name in node.inputs[1:3]]
    pairs = []
    for first in layers.values():
        readers = users[first.output]
        if len(readers) != 1 or readers[0].output not in layers or first.output in graph.outputs:
            continue
        second = readers[0]
        # What two layers share cannot be scaled for one of them.
        is_own = names.count(first.inputs[1]) == 1 and names.count(second.inputs[1]) == 1
        if second.inputs.count(first.output) == 1 and second.inputs[0] == first.output and is_own and _scales(first):
            pairs.append((first, second))
    return [pair for pair in pairs if all(isinstance(node.op, Conv2d | Dense) for node in pair)]


def _scales(node: Node) -> bool:
    """Whether its output is scaled along with its weight and bias."""
    op = node.op
    assert isinstance(op, EpilogueOp)
    return not op.has_residual and (op.activation is None or op.activation.function == "relu")


def correct_biases(network: QuantizedNetwork, sample: Example) -> None:
    """Add to each bias what rounding the weights takes from the mean of the layer's outputs, on a sample of inputs.

    Source: Nagel et al., 1906.04721, section 4.2.
    """
    shifts: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for node, inputs in network.calls(sample):
            product, quantizer = _product(node), network.quantizer(node.inputs[1]) if len(node.inputs) > 1 else None
            if product is None or quantizer is None or not isinstance(node.op, EpilogueOp) or not node.op.has_bias:
                continue
            weight, axis = network.weight(node.inputs[1]), 1 if isinstance(node.op, Conv2d) else -1
            shift = bias_correction(weight, quantizer(weight), product, [inputs[0]], axis=axis)
            shifts[node.inputs[node.op.bias_index]] = shift
    for name, shift in shifts.items():
        network.set_weight(name, network.weight(name) + shift)


def learn_rounding(network: QuantizedNetwork, sample: Example) -> None:
    """Let each layer's weights be rounded up or down so that its outputs change the least, layer after layer.

    Source: Nagel et al. (AdaRound), 2004.10568.
    """
    names = {node.output for node in layers_of(network.example_graph) if network.quantizer(node.inputs[1]) is not None}
    with progress("learn rounding", len(names)) as bar:
        for name in [node.output for node in network.example_graph.nodes if node.output in names]:
            node, inputs = next((n, given) for n, given in network.calls(sample) if n.output == name)
            product, quantizer = _product(node), network.quantizer(node.inputs[1])
            if product is not None and isinstance(quantizer, Quantizer):
                weight = network.weight(node.inputs[1])
                x = inputs[0].detach()
                network.set_weight(node.inputs[1], adaround(weight, quantizer.format, product, x))
            bar.advance(description=f"learn rounding: {node.layer}")


def _product(node: Node) -> Product | None:
    """Of a weight and inputs the sums of a layer, without its epilogue; None for other ops."""
    op = node.op
    if isinstance(op, Conv2d):
        return lambda weight, x: op.convolve(x, weight)
    if isinstance(op, Dense):
        return lambda weight, x: x @ weight.T
    return None
