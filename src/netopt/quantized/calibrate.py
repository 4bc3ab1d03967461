"""One pass over calibration inputs: what the values of a network are like."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netopt.console import progress
from netopt.errors import InvalidArgument, InvalidType
from netopt.example import Example
from netopt.quantization.fixed_point.observer import Observer
from netopt.quantized.assign import assign, layers_of
from netopt.quantized.network import QuantizedNetwork
from netopt.transform.observe import inputs_of

# Inputs: a tensor (number, ...), or batches in any iterable, each an example or a pair (inputs, labels).
CalibrationData = torch.Tensor | Iterable[Any]
# Rows of a tensor that run together.
_BATCH = 64


@dataclass(frozen=True)
class Calibrated:
    """What one pass has shown.

    Attributes:
        observers: what has been seen of each value that may become codes; values that share a format share one.
        sample: the first batch.
    """

    observers: Mapping[str, Observer]
    sample: Example


def calibrate(
    model: nn.Module,
    calibration: CalibrationData,
    example: Example | None,
    prepare: Callable[[QuantizedNetwork], object] | None = None,
) -> tuple[QuantizedNetwork, Calibrated]:
    """The network as its graph, nothing rounded yet, and what its values are, from one pass over the inputs.

    Args:
        model: a trained network.
        calibration: inputs; they may be empty, if there is an example: then nothing has been seen.
        example: one input, for its shapes; None for the first batch.
        prepare: what is done to the network before.

    Raises:
        InvalidType, InvalidArgument: the inputs cannot be used.
        UnsupportedModel: the model cannot be traced.
    """
    batches = batches_of(calibration)
    first = next(batches, None)
    given = first if example is None else example
    if given is None:
        raise InvalidArgument("calibration", expected="at least one input", found="none")
    network = QuantizedNetwork(model, given)
    if prepare is not None:
        prepare(network)
    graph = network.example_graph
    chosen = {node.output for node in layers_of(graph)}
    groups = assign(graph, lambda node: node.output in chosen).groups
    observers = {group[0]: Observer() for group in groups}
    observer_of = {name: observers[group[0]] for group in groups for name in group}
    total = len(calibration) if isinstance(calibration, Sized) else 0
    total = -(-total // _BATCH) if isinstance(calibration, torch.Tensor) else total
    remaining = batches if first is None else itertools.chain([first], batches)
    with progress("calibrate", total) as bar, torch.no_grad():
        for batch in remaining:
            for name, value in network.watch(batch):
                if name in observer_of and value.is_floating_point():
                    observer_of[name].update(value)
            bar.advance()
    return network, Calibrated(observer_of, given if first is None else first)


def batches_of(calibration: CalibrationData) -> Iterator[Example]:
    """The batches, as examples.

    Raises:
        InvalidType: they are no tensor and nothing that can be iterated.
        InvalidArgument: a tensor without rows.
    """
    if isinstance(calibration, torch.Tensor):
        if calibration.dim() == 0 or not len(calibration):
            raise InvalidArgument("calibration", expected="at least one input", found=tuple(calibration.shape))
        yield from torch.split(calibration, _BATCH)
        return
    if isinstance(calibration, str | Mapping) or not isinstance(calibration, Iterable):
        raise InvalidType(
            "calibration", expected="a tensor, a list of batches or a data loader", found=type(calibration).__name__
        )
    for batch in calibration:
        inputs = inputs_of(batch)
        yield tuple(inputs) if isinstance(inputs, list) else inputs
