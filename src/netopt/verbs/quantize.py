"""A network in codes of few bits, in one call: positions from calibration inputs, and what hurts most left finer."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, overload

import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.example import Example
from netopt.graph import Node
from netopt.ops import Dense
from netopt.program.lower import lower_as
from netopt.program.options import Lowering
from netopt.program.program import Program
from netopt.quantization.fixed_point.techniques import FixedPoint, NetworkTechnique, WeightOnly
from netopt.quantized.assign import layers_of
from netopt.quantized.calibrate import Calibrated, CalibrationData, batches_of, calibrate
from netopt.quantized.correct import correct_biases, equalize_layers, learn_rounding
from netopt.quantized.network import QuantizedNetwork
from netopt.quantized.plan import Evaluate, Plan, apply_plan, apply_weight_only, choose_scales, refine, score
from netopt.quantized.report import QuantizationReport, report_on
from netopt.quantized.typed import apply_types, check_types, to_observe
from netopt.quantized.types import TypeWish
from netopt.transform.select import Layer, select
from netopt.transform.select import layers_of as modules_of


@dataclass(frozen=True)
class Quantized:
    """What `quantize(..., lower=True)` returns.

    Attributes:
        model: the network in codes, which can be trained further.
        program: the same, lowered.
        report: a row for each op.
    """

    model: QuantizedNetwork
    program: Program
    report: QuantizationReport


@overload
def quantize(
    model: nn.Module,
    technique: NetworkTechnique | None = None,
    *,
    calibration: CalibrationData | None = None,
    example: Example | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    types: Mapping[str, TypeWish] | None = None,
    lower: Literal[False] = False,
    threads: int = 1,
    tune: bool = False,
    target: str | None = None,
) -> QuantizedNetwork: ...


@overload
def quantize(
    model: nn.Module,
    technique: NetworkTechnique | None = None,
    *,
    calibration: CalibrationData | None = None,
    example: Example | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    types: Mapping[str, TypeWish] | None = None,
    lower: Literal[True],
    threads: int = 1,
    tune: bool = False,
    target: str | None = None,
) -> Quantized: ...


def quantize(
    model: nn.Module,
    technique: NetworkTechnique | None = None,
    *,
    calibration: CalibrationData | None = None,
    example: Example | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    types: Mapping[str, TypeWish] | None = None,
    lower: bool = False,
    threads: int = 1,
    tune: bool = False,
    target: str | None = None,
) -> QuantizedNetwork | Quantized:
    """Round a trained network's weights and values to codes of few bits, as it will run.

    What is returned is a module: it can be evaluated, trained further by any loop, and lowered with `netopt.lower`. In
    float64 (`exact`) it computes what the lowered program computes, to the bit.

    Args:
        model: a trained network; it is not changed.
        technique: `FixedPoint(...)`, or `WeightOnly(...)`; None for `FixedPoint()`: 8 bits, steps of powers of two.
        calibration: inputs like those that the network will see: a tensor (number, ...), or batches in a list, a data
            loader or a generator, each an example or a pair (inputs, labels). They are read once.
        example: one input, for its shapes; the first of the calibration inputs if not given.
        evaluate: tells how good a network is, as a number: more is better. With `max_drop`.
        max_drop: how much worse than the float network the result may be, in what `evaluate` returns: the layers that
            hurt most get 16 bits, and then stay in float32, until it is met. The report names them.
        types: the types of the network's variables, by name, as `netopt.settings.read_settings` reads them: what is not
            named stays in float32. In place of what the technique says of bits and layers.
        lower: compile the result, too.
        threads: for the program; see `netopt.lower`, as for the options below.
        tune: see `netopt.lower`.
        target: see `netopt.lower`.

    Raises:
        InvalidArgument, InvalidType: an argument is missing or cannot be used.
        UnsupportedModel: the model cannot be traced, or not be lowered.
    """
    options = Lowering(threads=threads, tune=tune, target=target)
    if types is None:
        network = quantized(model, technique, calibration, example, evaluate=evaluate, max_drop=max_drop)
    else:
        _check_no_search(evaluate, max_drop)
        network = typed(model, technique, calibration, example, types)
    if not lower:
        return network
    assert network.report is not None
    program = lower_as(network, network.example if example is None else example, options)
    return Quantized(network, program, network.report)


def quantized(
    model: nn.Module,
    technique: NetworkTechnique | None,
    calibration: CalibrationData | None,
    example: Example | None,
    *,
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
) -> QuantizedNetwork:
    """The network that `quantize` returns, or lowers."""
    technique = FixedPoint() if technique is None else technique
    _check(model, technique, calibration, evaluate, max_drop)
    is_equalized = isinstance(technique, FixedPoint) and technique.equalize
    data = () if calibration is None else calibration
    network, seen = calibrate(model, data, example, equalize_layers if is_equalized else None)
    plan = Plan(frozenset(node.output for node in _selected(model, network, technique)))
    if not plan.chosen:
        raise InvalidArgument("model", expected="a layer that is selected, with known weights", found="none")
    notes: tuple[str, ...] = ()
    if isinstance(technique, FixedPoint):
        least = None if evaluate is None or max_drop is None else score(evaluate, network) - max_drop
        technique, found = choose_scales(network, plan, seen.observers, technique, seen.sample)
        apply = partial(_apply, network, seen, technique, network.weights())
        apply(plan)
        notes += found
        if evaluate is not None and least is not None:
            refined = refine(network, plan, apply, seen.sample, evaluate, least)
            notes += _notes(network, plan, refined)
    if isinstance(technique, WeightOnly):
        apply_weight_only(network, plan, seen.observers, technique)
    network.report = report_on(network, seen.sample, notes)
    return network


def _apply(
    network: QuantizedNetwork, seen: Calibrated, technique: FixedPoint, weights: Mapping[str, torch.Tensor], plan: Plan
) -> None:
    """Round the network by a plan, and correct what that changes, beginning with these weights and biases."""
    for name, value in weights.items():
        network.set_weight(name, value)
    apply_plan(network, plan, seen.observers, technique)
    if technique.adaround:
        learn_rounding(network, seen.sample)
    if technique.corrects_bias:
        correct_biases(network, seen.sample)


def typed(
    model: nn.Module,
    technique: NetworkTechnique | None,
    calibration: CalibrationData | None,
    example: Example | None,
    types: Mapping[str, TypeWish],
) -> QuantizedNetwork:
    """The network whose variables have these types."""
    technique = FixedPoint() if technique is None else technique
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    if not isinstance(technique, FixedPoint):
        raise InvalidType("technique", expected="FixedPoint(...) with types", found=repr(technique))
    batches = iter(()) if calibration is None else batches_of(calibration)
    first = next(batches, None)
    given = first if example is None else example
    if given is None:
        raise InvalidArgument("calibration", expected="at least one input, or an example", found="none")
    network = QuantizedNetwork(model, given)
    check_types(network, types)
    observers = to_observe(network, types)
    with torch.no_grad():
        for batch in [] if first is None else itertools.chain([first], batches):
            for name, value in network.watch(batch):
                if name in observers:
                    observers[name].update(value)
    apply_types(network, types, observers, technique)
    network.report = report_on(network, given if first is None else first)
    return network


def _check_no_search(evaluate: object, max_drop: object) -> None:
    if evaluate is not None or max_drop is not None:
        raise InvalidArgument("types", expected="types, or evaluate= and max_drop=", found="both")


def _selected(model: nn.Module, network: QuantizedNetwork, technique: NetworkTechnique) -> list[Node]:
    """The layers of the graph that come from the modules that are selected."""
    nodes = layers_of(network.example_graph)
    if isinstance(technique, WeightOnly):
        nodes = [node for node in nodes if isinstance(node.op, Dense)]
    if technique.select is None:
        return nodes
    names = {node.layer for node in nodes}
    candidates: list[Layer] = [layer for layer in modules_of(model) if layer.name in names]
    chosen = select(candidates, technique.select)
    wanted = {layer.name for layer, is_chosen in zip(candidates, chosen, strict=True) if is_chosen}
    return [node for node in nodes if node.layer in wanted]


def _notes(network: QuantizedNetwork, before: Plan, after: Plan) -> tuple[str, ...]:
    """What was left finer, in words."""
    layer_of = {node.output: node.layer or node.output for node in network.example_graph.nodes}
    wide = ", ".join(sorted(layer_of[name] for name in after.wide))
    floats = ", ".join(sorted(layer_of[name] for name in before.chosen - after.chosen))
    notes = [f"16 bits, to keep what evaluate returns: {wide}"] if wide else []
    return (*notes, *([f"left in float32, to keep what evaluate returns: {floats}"] if floats else []))


def _check(model: object, technique: object, calibration: object, evaluate: object, max_drop: object) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    if not isinstance(technique, NetworkTechnique):
        raise InvalidType("technique", expected="FixedPoint(...) or WeightOnly(...)", found=repr(technique))
    if (evaluate is None) != (max_drop is None):
        raise InvalidArgument("max_drop", expected="evaluate= and max_drop=, or neither", found="one of them")
    if evaluate is not None and not callable(evaluate):
        raise InvalidType("evaluate", expected="a function of the model", found=repr(evaluate))
    if max_drop is not None and (isinstance(max_drop, bool) or not isinstance(max_drop, int | float) or max_drop < 0):
        raise InvalidArgument("max_drop", expected="a number of at least 0", found=repr(max_drop))
    needs = isinstance(technique, FixedPoint | WeightOnly) and technique.activations is not None
    if calibration is None and needs:
        raise InvalidArgument(
            "calibration",
            expected="inputs, from which the positions of values are found",
            found="none",
            fix="give calibration=..., or FixedPoint(activations=None)",
        )
