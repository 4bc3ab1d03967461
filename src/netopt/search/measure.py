"""Whether a replacement is faster, measured on the kernels that ship."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import nn

from netopt.console import doing
from netopt.errors import UnsupportedModel
from netopt.ops import Relayout
from netopt.program.lower import lower_as
from netopt.program.options import Lowering
from netopt.program.program import Program
from netopt.search.problem import problem_of
from netopt.timing import SelfTimed, interleaved
from netopt.transform.candidate import Replacement
from netopt.transform.policy import Verdict

# Of a measurement: turns, calls in a turn, and seconds after which it ends early.
ROUNDS, BURST, SECONDS = 20, 3, 1.0


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


# A layer, or what replaces it, and the shape of its input.
_Problem = tuple[Hashable, torch.Size]


@dataclass(frozen=True)
class Known:
    """What was measured.

    Attributes:
        times: of layers, in milliseconds.
        ratios: time of a replacement to that of its layer, by both; or why one of them cannot be lowered.
    """

    times: dict[_Problem, float] = field(default_factory=dict)
    ratios: dict[tuple[_Problem, _Problem], float | UnsupportedModel] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FasterBy:
    """Keeps a replacement that takes at most 1 - margin of the layer's time, both lowered alone, in turn, in one run.

    Layers and replacements that are alike are measured once (`netopt.search.problem`), so that equal layers have equal
    verdicts. A layer that is measured again with another replacement keeps its first time, and the replacement's is in
    the ratio that was measured; thus the times of a report can be compared.

    Attributes:
        margin: share of the layer's time that must be saved.
        options: how the layers are lowered.
        known: what was measured so far.
    """

    margin: float
    options: Lowering
    known: Known = field(default_factory=Known, repr=False, compare=False)

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
        """Medians in milliseconds of a layer and its replacement, from what is known or measured."""
        before, after = (problem_of(old), old_shape), (problem_of(new), new_shape)
        if before[0] is None or after[0] is None:
            return self._measured(old, new, old_shape, new_shape)
        if (before, after) not in self.known.ratios:
            try:
                times = self._measured(old, new, old_shape, new_shape)
            except UnsupportedModel as error:
                self.known.ratios[before, after] = error
                raise
            self.known.times.setdefault(before, times[0])
            self.known.ratios[before, after] = times[1] / times[0]
        ratio = self.known.ratios[before, after]
        if isinstance(ratio, UnsupportedModel):
            raise ratio
        return self.known.times[before], ratio * self.known.times[before]

    def _measured(
        self, old: nn.Module, new: nn.Module, old_shape: torch.Size, new_shape: torch.Size
    ) -> tuple[float, float]:
        inputs = {shape: torch.randn(shape, generator=torch.Generator()) for shape in (old_shape, new_shape)}
        with doing("lowering it alone"):
            programs = {
                name: StepsOf(lower_as(_in_float32(module), inputs[shape], self.options), (inputs[shape],))
                for name, module, shape in (("old", old, old_shape), ("new", new, new_shape))
            }
        with doing("timing it"):
            timings = interleaved(programs, rounds=ROUNDS, burst=BURST, seconds=SECONDS)
        return timings["old"].median, timings["new"].median


def _in_float32(module: nn.Module) -> nn.Module:
    """The layer itself, or where it has another type or device, as it will be lowered."""
    return module if is_float32(module) else copy.deepcopy(module).to("cpu", torch.float32)


def is_float32(module: nn.Module) -> bool:
    """Whether all numbers are float32 on the CPU, as they must be to be lowered; integers may be there, too."""
    tensors = list(chain(module.parameters(), module.buffers()))
    return all(
        tensor.device.type == "cpu" and (tensor.dtype == torch.float32 or not tensor.is_floating_point())
        for tensor in tensors
    )
