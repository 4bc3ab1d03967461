"""The three steps in one call: transform, retrain, lower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from netopt.checks import check_threads
from netopt.errors import InvalidArgument, InvalidType
from netopt.graph.capture import Example
from netopt.lower import lower as lower_model
from netopt.lower import prepare
from netopt.program import Program
from netopt.technique import Report, Technique, transform


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


def optimize(
    model: nn.Module,
    techniques: Technique | Sequence[Technique],
    *,
    train: Callable[[nn.Module], nn.Module | None] | None = None,
    lower: bool = False,
    example: Example | None = None,
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
        train: gets the transformed model; trains it in place or returns another.
        lower: compile the result for this machine; needs `example`.
        example: one input: a tensor, a tuple of positional arguments or a dict of keyword arguments.
        threads: for the program; see `netopt.lower`.
        tune: for the program; see `netopt.lower`.
        exact: for the program; see `netopt.lower`.
        precision: for the program; see `netopt.lower`.
        fallback: let PyTorch run what cannot be lowered; see `netopt.lower`.

    Raises:
        InvalidArgument: `lower` without `example`.
        InvalidType: an argument, or what `train` returns, is not what it should be.
        NetoptError: a layer cannot be replaced, or the model cannot be lowered; names the layer.
    """
    if lower and example is None:
        raise InvalidArgument(
            "example", expected="an input for the shapes", found="none", fix="give example=... with lower=True"
        )
    if train is not None and not callable(train):
        raise InvalidType("train", expected="a function of the model", found=repr(train))
    check_threads(threads)
    transformed, report = transform(model, techniques)
    if train is not None and lower and example is not None:
        # What cannot be lowered should be known before the hours of training, not after.
        prepare(transformed, example, precision=precision, fallback=fallback)
    if train is not None:
        trained: object = train(transformed)
        if isinstance(trained, nn.Module):
            transformed = trained
        elif trained is not None:
            raise InvalidType(
                "train", expected="a model, or None after training in place", found=type(trained).__name__
            )
    program = None
    if lower and example is not None:
        program = lower_model(
            transformed, example, threads=threads, tune=tune, exact=exact, precision=precision, fallback=fallback
        )
    return Optimized(transformed, program, report)
