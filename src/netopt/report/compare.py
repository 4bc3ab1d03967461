"""Several versions of one network side by side, measured in one run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from netopt.console import count, render_table
from netopt.errors import InvalidArgument
from netopt.program.lower import lower
from netopt.program.program import Program
from netopt.report.accuracy import Accuracy
from netopt.timing import Timing, interleaved


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One version.

    Attributes:
        name: what it is called.
        accuracy: of the lowered program; None if no test data were given.
        agreeing: on how many of the test inputs program and model give the same class; None likewise.
        parameters: numbers in the model.
        weight_bytes: bytes of weights that the program holds.
        multiply_adds: of one run.
        arena_bytes: bytes of the program's arena.
        eager: latency of the model in eager PyTorch.
        lowered: latency of the program.
    """

    name: str
    accuracy: Accuracy | None
    agreeing: int | None
    parameters: int
    weight_bytes: int
    multiply_adds: int
    arena_bytes: int
    eager: Timing
    lowered: Timing


@dataclass(frozen=True)
class Comparison:
    """A row for each version. `print(comparison)` shows a table with ratios to the first."""

    rows: tuple[Measured, ...]

    def __str__(self) -> str:
        first = self.rows[0]
        columns: tuple[str, ...] = ("network", "accuracy (95 %)", "parameters", "weight bytes", "multiply-adds")
        columns += ("arena bytes", "latency, eager", "latency, lowered")
        cells = [
            (
                row.name,
                row.accuracy if row.accuracy is not None else "not measured",
                _with_ratio(row.parameters, first.parameters),
                _with_ratio(row.weight_bytes, first.weight_bytes),
                _with_ratio(row.multiply_adds, first.multiply_adds),
                _with_ratio(row.arena_bytes, first.arena_bytes),
                _latency(row.eager, first.eager),
                _latency(row.lowered, first.lowered),
            )
            for row in self.rows
        ]
        return render_table(columns, cells)


def compare(
    models: Mapping[str, nn.Module],
    example: torch.Tensor,
    *,
    images: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    rounds: int = 100,
) -> Comparison:
    """Lower each model, measure its accuracy as lowered, and time models and programs in turn.

    Args:
        models: versions of one classifier, by name, in eval mode or not: they are measured as in eval mode. The first
            is what the others are compared with.
        example: the input that is timed.
        images: test inputs (number, ...), one or more for each row of `example`'s batch.
        labels: their classes (number,).
        rounds: of timing.

    Raises:
        InvalidArgument: there is no model, or images come without labels or in another number.
        UnsupportedModel: a model cannot be lowered.
    """
    if not models:
        raise InvalidArgument("models", expected="at least one", found="none")
    if (images is None) != (labels is None) or (
        images is not None and labels is not None and len(images) != len(labels)
    ):
        raise InvalidArgument("images and labels", expected="both, in the same number", found="other")
    frozen = {name: copy.deepcopy(model).eval() for name, model in models.items()}
    programs = {name: lower(model, example) for name, model in frozen.items()}
    calls: dict[str, Callable[[], object]] = {}
    for name in models:
        calls[f"{name} eager"] = partial(frozen[name], example)
        calls[f"{name} lowered"] = partial(programs[name], example)
    with torch.inference_mode():
        timings = interleaved(calls, rounds=rounds, burst=3)
        rows = []
        for name, program in programs.items():
            accuracy, agreeing = None, None
            if images is not None and labels is not None:
                predicted = _classes(program, images, len(example))
                accuracy = Accuracy(int((predicted == labels).sum()), len(labels))
                agreeing = int((predicted == frozen[name](images).argmax(1)).sum())
            rows.append(
                Measured(
                    name=name,
                    accuracy=accuracy,
                    agreeing=agreeing,
                    parameters=sum(parameter.numel() for parameter in models[name].parameters()),
                    weight_bytes=program.weight_bytes,
                    multiply_adds=program.multiply_adds,
                    arena_bytes=program.arena_bytes,
                    eager=timings[f"{name} eager"],
                    lowered=timings[f"{name} lowered"],
                )
            )
    return Comparison(tuple(rows))


def _classes(program: Program, images: torch.Tensor, batch: int) -> torch.Tensor:
    """The class that the program gives each image, a batch at a time; the last batch is filled up."""
    missing = -len(images) % batch
    filled = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])
    starts = range(0, len(filled), batch)
    return torch.cat([program(filled[start : start + batch]).argmax(1) for start in starts])[: len(images)]


def _with_ratio(value: int, first: int) -> str:
    return f"{count(value)} ({value / first:.2f}x)" if first else count(value)


def _latency(timing: Timing, first: Timing) -> str:
    return f"{1000 * timing.median:.1f} us ({timing.median / first.median:.2f}x)"
