"""Whether a replacement is faster, measured on the kernels that ship."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import nn

from netopt.errors import UnsupportedModel
from netopt.example import Example
from netopt.ops import Relayout
from netopt.program.lower import lower_as
from netopt.program.options import Lowering
from netopt.program.program import Program
from netopt.timing import SelfTimed, interleaved
from netopt.transform.candidate import Replacement
from netopt.transform.layer_report import NetworkTimes
from netopt.transform.policy import Verdict

_ROUNDS, _BURST, _SECONDS = 20, 3, 1.0


class StepsOf(SelfTimed):
    """A program's own steps: without the copies of its inputs and outputs, and without changes of their layout.

    A layer in the middle of a network gets its input in the layout that it wants, from the layer before it.
    """

    def __init__(self, program: Program, inputs: tuple[torch.Tensor, ...]) -> None:
        self._program, self._inputs = program, inputs
        self._counted = [not isinstance(step.op, Relayout) for step in program.steps]

    def times(self, count: int) -> list[float]:
        """Seconds of each run, the sum over the steps."""
        results = []
        for _ in range(count):
            total = 0.0

            def watch(index: int, run: Callable[[], None]) -> None:
                nonlocal total
                before = time.perf_counter()
                run()
                if self._counted[index]:
                    total += time.perf_counter() - before

            self._program.call_by_steps(watch, *self._inputs)
            results.append(total)
        return results


@dataclass(frozen=True, kw_only=True)
class FasterBy:
    """Keeps a replacement that takes at most 1 - margin of the layer's time, both lowered alone, in turn, in one run.

    Attributes:
        margin: share of the layer's time that must be saved.
        options: how the layers are lowered.
    """

    margin: float
    options: Lowering

    def __call__(self, parts: Sequence[Replacement]) -> Verdict:
        """The verdict on the layers of a group: their times are added."""
        if not all(part.layer.input_shapes for part in parts):
            return Verdict(False, "is not called for the example with one tensor, so that its time is not known")
        before, after = 0.0, 0.0
        try:
            for part in parts:
                for shapes in zip(part.layer.input_shapes, part.input_shapes, strict=True):
                    times = self._times(part.layer.module, part.module, *shapes)
                    before, after = before + times[0], after + times[1]
        except UnsupportedModel as error:
            return Verdict(False, f"cannot be lowered: {str(error).splitlines()[0]}")
        keeps = after <= (1 - self.margin) * before
        reason = "" if keeps else f"not faster by {self.margin:.0%}"
        return Verdict(keeps, reason, before, after)

    def _times(
        self, old: nn.Module, new: nn.Module, old_shape: torch.Size, new_shape: torch.Size
    ) -> tuple[float, float]:
        inputs = {shape: torch.randn(shape, generator=torch.Generator()) for shape in (old_shape, new_shape)}
        programs = {
            name: StepsOf(lower_as(_in_float32(module), inputs[shape], self.options), (inputs[shape],))
            for name, module, shape in (("old", old, old_shape), ("new", new, new_shape))
        }
        timings = interleaved(programs, rounds=_ROUNDS, burst=_BURST, seconds=_SECONDS)
        return timings["old"].median, timings["new"].median


def network_times(before: nn.Module, after: nn.Module, example: Example, options: Lowering) -> NetworkTimes | None:
    """Both networks lowered and called in turn; None if the network cannot be lowered as it is."""
    if not (_is_float32(before) and _is_float32(after)):
        return None
    try:
        programs = [lower_as(model, example, options) for model in (before, after)]
    except UnsupportedModel:
        return None
    calls = {str(number): partial(program, example) for number, program in enumerate(programs)}
    timings = interleaved(calls, rounds=_ROUNDS, burst=_BURST, seconds=2 * _SECONDS)
    return NetworkTimes(timings["0"].median, timings["1"].median)


def _in_float32(module: nn.Module) -> nn.Module:
    """The layer itself, or where it has another type or device, as it will be lowered."""
    return module if _is_float32(module) else copy.deepcopy(module).to("cpu", torch.float32)


def _is_float32(module: nn.Module) -> bool:
    """Whether all numbers are float32 on the CPU, as they must be to be lowered; integers may be there, too."""
    tensors = list(chain(module.parameters(), module.buffers()))
    return all(
        tensor.device.type == "cpu" and (tensor.dtype == torch.float32 or not tensor.is_floating_point())
        for tensor in tensors
    )
