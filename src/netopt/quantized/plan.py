"""Which layers of a network compute on codes, of how many bits: applied to a network, and chosen by its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from netopt.console import progress
from netopt.errors import InvalidType
from netopt.example import Example, call
from netopt.graph import Node
from netopt.numerics import Grouped
from netopt.quantization.fixed_point.calibration import MSE
from netopt.quantization.fixed_point.observer import Observer
from netopt.quantization.fixed_point.quantizer import Quantizer
from netopt.quantization.fixed_point.techniques import FixedPoint, Scales, WeightOnly
from netopt.quantized.assign import assign, layers_of
from netopt.quantized.network import QuantizedNetwork
from netopt.quantized.place import value_format, weight_format
from netopt.quantized.rounding import FormatRounding

# What tells how good a network is, such as its accuracy: more is better.
Evaluate = Callable[[nn.Module], float]
_WIDE = 16
_KINDS: dict[Scales, str] = {"power": "powers of two", "real": "real scales"}
# Errors of the output, in proportion to it, of which those of real scales must be this much smaller to be chosen, and
# those of powers of two this large.
_MUCH_LESS = 0.8
_MATTERS = 0.01


@dataclass(frozen=True)
class Plan:
    """What becomes of the layers, each by the value that it writes.

    Attributes:
        chosen: those that compute on codes.
        wide: of these, those whose weights and inputs have 16 bits.
    """

    chosen: frozenset[str]
    wide: frozenset[str] = frozenset()

    def finer(self, layer: str) -> Plan:
        """The plan in which a layer has 16 bits, or if it has them already, stays in float32."""
        if layer in self.wide:
            return Plan(self.chosen - {layer}, self.wide - {layer})
        return replace(self, wide=self.wide | {layer})


def apply_plan(network: QuantizedNetwork, plan: Plan, observers: Mapping[str, Observer], technique: FixedPoint) -> None:
    """Round the weights of the chosen layers, and the values that they need as codes; all else is not rounded.

    Args:
        observers: what has been seen of each value.
    """
    graph = network.example_graph
    network.leave_all()
    assignment = assign(graph, lambda node: node.output in plan.chosen)
    layers = {node.output: node for node in layers_of(graph) if node.output in plan.chosen}
    wide = {layers[name].inputs[0] for name in plan.wide}
    if technique.activations is not None:
        for group in assignment.groups:
            bits = _WIDE if wide & set(group) else technique.activations
            format_ = value_format(observers[group[0]], bits, technique.method, technique.scales)
            network.round_to(group, Quantizer.of(format_, learned=technique.learned, batched=True))
    for name, node in layers.items():
        options = replace(technique, weights=_WIDE) if name in plan.wide else technique
        _place_weight(network, node, options)


def apply_weight_only(
    network: QuantizedNetwork, plan: Plan, observers: Mapping[str, Observer], technique: WeightOnly
) -> None:
    """Round the weights of the chosen dense layers in groups, and if asked for the values that they read."""
    graph = network.example_graph
    network.leave_all()
    names = {node.inputs[1]: None for node in layers_of(graph) if node.output in plan.chosen}
    for name in names:
        network.round_to((name,), FormatRounding(Grouped(technique.bits, technique.group)))
    if technique.activations is not None:
        for group in assign(graph, lambda node: node.output in plan.chosen).groups:
            format_ = value_format(observers[group[0]], technique.activations, MSE(), "power")
            network.round_to(group, Quantizer.of(format_, batched=True))


def _place_weight(network: QuantizedNetwork, node: Node, technique: FixedPoint) -> None:
    """With the smallest error that such codes leave; a weight of several layers has the format of the first."""
    name = node.inputs[1]
    if network.quantizer(name) is None:
        format_ = weight_format(network.weight(name), node, network.example_graph, technique)
        network.round_to((name,), Quantizer.of(format_, learned=technique.learned))


def choose_scales(
    network: QuantizedNetwork,
    plan: Plan,
    observers: Mapping[str, Observer],
    technique: FixedPoint,
    sample: Example,
) -> tuple[FixedPoint, tuple[str, ...]]:
    """The technique with the kind of steps that it asks for, or if for the best one, that; and why, in words.

    Steps of powers of two are given up only for scales that leave much less of an error in the output, on a sample of
    inputs, and where the error is one that matters: they scale by shifts.
    """
    if technique.scales != "best":
        return technique, ()
    with network.all_off(), torch.no_grad():
        exact = _flat(call(network, sample))
    errors = {}
    for scales in _KINDS:
        apply_plan(network, plan, observers, replace(technique, scales=scales))
        with torch.no_grad():
            errors[scales] = float((_flat(call(network, sample)) - exact).norm() / exact.norm().clamp_min(1e-30))
    best: Scales = "real" if errors["real"] < _MUCH_LESS * errors["power"] and errors["power"] > _MATTERS else "power"
    told = (
        f"{100 * errors['power']:.2f} % of the output with powers of two, {100 * errors['real']:.2f} % with real scales"
    )
    return replace(technique, scales=best), (f"steps: {_KINDS[best]}; rounding changes {told}",)


def layers_by_harm(network: QuantizedNetwork, plan: Plan, sample: Example) -> list[str]:
    """The chosen layers, that first whose rounding, all others left as they are, changes the output the most."""
    with network.all_off(), torch.no_grad():
        exact = _flat(call(network, sample))
    harm = {}
    for node in layers_of(network.example_graph):
        if node.output in plan.chosen:
            with network.all_off(but=node.inputs[:2]), torch.no_grad():
                harm[node.output] = float((_flat(call(network, sample)) - exact).square().mean())
    return sorted(harm, key=lambda name: -harm[name])


def refine(
    network: QuantizedNetwork,
    plan: Plan,
    apply: Callable[[Plan], None],
    sample: Example,
    evaluate: Evaluate,
    least: float,
) -> Plan:
    """Give the layers that hurt most 16 bits, then float32, until the network is as good as is asked for.

    Args:
        network: rounded by the plan.
        plan: which layers compute on codes.
        apply: rounds the network by a plan.
        sample: inputs on which it is seen what hurts.
        evaluate: tells how good a network is; more is better.
        least: how good it must be.
    """
    if score(evaluate, network) >= least:
        return plan
    order = layers_by_harm(network, plan, sample)
    with progress("refine", 2 * len(order)) as bar:
        for layer in [*order, *order]:
            plan = plan.finer(layer)
            apply(plan)
            bar.advance(description=f"refine: {layer}")
            if score(evaluate, network) >= least:
                break
    return plan


def score(evaluate: Evaluate, network: QuantizedNetwork) -> float:
    """What `evaluate` says of a network, as a number.

    Raises:
        InvalidType: it says something else.
    """
    score: object = evaluate(network)
    try:
        return float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InvalidType(
            "answer of evaluate", expected="a number, more of which is better", found=repr(score)
        ) from None


def _flat(output: object) -> torch.Tensor:
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    return torch.cat([leaf.double().reshape(-1) for leaf in leaves])
