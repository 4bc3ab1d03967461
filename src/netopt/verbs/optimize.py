"""The three steps in one call: transform, retrain, lower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.example import Example
from netopt.program.checks import check_threads
from netopt.program.lower import lower as lower_model
from netopt.program.lower import prepare
from netopt.program.program import Program
from netopt.search.measure import FasterBy, network_times
from netopt.transform.apply import KeepIf, Train, retrained, transform
from netopt.transform.layer_report import Report
from netopt.transform.observe import Calibration
from netopt.transform.reparametrized import copied
from netopt.transform.technique import Technique

# Medians of one network in turns with itself differ by less: a network that is slower by less is not slower.
_NOISE = 1.02


@dataclass(frozen=True)
class Optimized:
    """What `optimize` returns.

    Attributes:
        model: the transformed, and if asked retrained, network.
        program: the lowered network; None unless asked for.
        report: what became of each candidate layer.
    """

    model: nn.Module
    program: Program | None
    report: Report


# Long by its options, each of which is one thing; the steps are five lines each.
def optimize(
    model: nn.Module,
    techniques: Technique | Sequence[Technique],
    *,
    train: Train | None = None,
    lower: bool = False,
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf | None = None,
    margin: float = 0.05,
    iterative: bool = False,
    recover: Train | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: str = "float32",
    fallback: bool = False,
) -> Optimized:
    """Transform a model, then retrain and lower it if asked. The caller's model is not changed.

    Args:
        model: a trained network.
        techniques: applied one after the other.
        train: gets the transformed model; trains it in place or returns another. `netopt.retrain` is one.
        lower: compile the result for this machine; needs `example`.
        example: one input: a tensor, a tuple of positional arguments or a dict of keyword arguments.
        calibration: inputs, a tensor (number, ...) or a list of batches, on which factorizations minimise the error of
            each layer's output, in place of that of its weights.
        keep_if: which replacements are kept: "faster", the default with an example, where the lowered layer was
            measured to take less time (all are undone, with what `recover` trained, should the whole network take
            more); "smaller", the default without one, where its parameters take fewer bytes; "always"; or a
            `netopt.Policy`, which chooses.
        margin: for "faster", the share of a layer's time that must be saved.
        iterative: replace one layer after another, with `recover`, or without it `train`, after each.
        recover: a short training after each replacement; implies `iterative`.
        threads: for the program, and for measuring; see `netopt.lower`. So are the options below.
        tune: see `netopt.lower`.
        exact: see `netopt.lower`.
        precision: see `netopt.lower`.
        fallback: let PyTorch run what cannot be lowered; see `netopt.lower`.

    Raises:
        InvalidArgument: `lower` or "faster" without `example`, or an option that is out of range.
        InvalidType: an argument, or what `train` returns, is not what it should be.
        NetoptError: a layer cannot be replaced, or the model cannot be lowered; names the layer.
    """
    keep_if = _checked(lower, example, keep_if, margin, {"train": train, "recover": recover})
    if iterative and train is None and recover is None:
        raise InvalidArgument("iterative", expected="train or recover", found="neither", fix="give recover=...")
    check_threads(threads)
    if lower and example is not None and (iterative or recover is not None):
        # What cannot be lowered should be known before the hours of training, not after.
        prepare(model, example, precision=precision, fallback=fallback)
    options: dict[str, Any] = {"threads": threads, "tune": tune, "exact": exact, "precision": precision}
    transformed, report = transform(
        model,
        techniques,
        example=example,
        calibration=calibration,
        keep_if=keep_if,
        judge=FasterBy(margin=margin, options=options).together if keep_if == "faster" else None,
        recover=recover or (train if iterative else None),
    )
    options = {**options, "fallback": fallback}
    if keep_if == "faster" and example is not None and any(row.replaced for row in report.rows):
        report = replace(report, network=network_times(model, transformed, example, options))
        if report.network is not None and report.network.after_ms > _NOISE * report.network.before_ms:
            transformed, report = copied(model), report.undone()
    if train is not None and lower and example is not None:
        # Likewise: replacements may hold what the model did not.
        prepare(transformed, example, precision=precision, fallback=fallback)
    if train is not None:
        transformed = retrained(transformed, train)
    program = lower_model(transformed, example, **options) if lower and example is not None else None
    return Optimized(transformed, program, report)


def _checked(
    lower: bool, example: Example | None, keep_if: KeepIf | None, margin: float, functions: dict[str, Train | None]
) -> KeepIf:
    """Whether what was asked for can be done; what decides which replacements are kept."""
    if example is None and (lower or keep_if == "faster"):
        what = "lower=True" if lower else 'keep_if="faster"'
        raise InvalidArgument(
            "example", expected="an input for the shapes", found="none", fix=f"give example=... with {what}"
        )
    if isinstance(example, list):
        raise InvalidType("example", expected="a tensor, a tuple of arguments or a dict of them", found="list")
    if not isinstance(margin, float | int) or not 0 <= margin < 1:
        raise InvalidArgument("margin", expected="a share from 0, below 1", found=margin)
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise InvalidType(name, expected="a function of the model", found=repr(function))
    return keep_if or ("smaller" if example is None else "faster")
