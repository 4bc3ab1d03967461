"""The three steps in one call: transform, retrain, lower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar, overload

from torch import nn

from netopt.errors import InvalidArgument
from netopt.example import Example
from netopt.program.lower import lower_as, prepare
from netopt.program.options import Lowering, Precision
from netopt.program.program import Program
from netopt.quantization.fixed_point.techniques import NetworkTechnique
from netopt.search.measure import FasterBy
from netopt.search.whole import WholeNetwork
from netopt.transform.apply import KeepIf, Train, checked, retrained, transform
from netopt.transform.layer_report import Report
from netopt.transform.observe import Calibration
from netopt.transform.reparametrized import copied
from netopt.transform.technique import Technique
from netopt.verbs.options import Optimization
from netopt.verbs.quantize import quantized

# Medians of one network in turns with itself differ by less: a network that is slower by less is not slower.
_NOISE = 1.02
# What a result has for a program, known from `lower=`: Program, None, or either.
P_co = TypeVar("P_co", bound=Program | None, covariant=True)


@dataclass(frozen=True)
class Optimized(Generic[P_co]):
    """What `optimize` returns.

    Attributes:
        model: the transformed, and if asked retrained, network.
        program: the lowered network; None unless asked for.
        report: what became of each candidate layer.
    """

    model: nn.Module
    program: P_co
    report: Report


@overload
def optimize(
    model: nn.Module,
    techniques: Technique | Sequence[Technique],
    *,
    train: Train | None = None,
    lower: Literal[False] = False,
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf | None = None,
    margin: float = 0.05,
    iterative: bool = False,
    recover: Train | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[None]: ...


@overload
def optimize(
    model: nn.Module,
    techniques: Technique | Sequence[Technique],
    *,
    train: Train | None = None,
    lower: Literal[True],
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf | None = None,
    margin: float = 0.05,
    iterative: bool = False,
    recover: Train | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[Program]: ...


@overload
def optimize(
    model: nn.Module,
    techniques: Technique | Sequence[Technique],
    *,
    train: Train | None = None,
    lower: bool,
    example: Example | None = None,
    calibration: Calibration | None = None,
    keep_if: KeepIf | None = None,
    margin: float = 0.05,
    iterative: bool = False,
    recover: Train | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[Program | None]: ...


# Long by its options, each of which is one thing.
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
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[Program | None]:
    """Transform a model, then retrain and lower it if asked. The caller's model is not changed.

    Args:
        model: a trained network.
        techniques: applied one after the other; one for the network as a whole, such as
            `netopt.quantization.FixedPoint`, comes last wherever it stands, since what is replaced after it would be
            float again.
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
        target: the CPU to lower for; see `netopt.lower`. For one whose code does not run here, "faster" cannot be
            measured, and `keep_if` is needed with an example.

    Raises:
        InvalidArgument: `lower` or "faster" without `example`, or an option that is out of range.
        InvalidType: an argument, or what `train` returns, is not what it should be.
        NetoptError: a layer cannot be replaced, or the model cannot be lowered; names the layer.
    """
    options = Optimization(
        train=train,
        lower=lower,
        example=example,
        calibration=calibration,
        keep_if=keep_if,
        margin=margin,
        iterative=iterative,
        recover=recover,
        lowering=Lowering(
            threads=threads, tune=tune, exact=exact, precision=precision, fallback=fallback, target=target
        ),
    )
    if options.trains_between is not None:
        # What cannot be lowered should be known before the hours of training, not after.
        _check_lowering(model, options)
    by_layer, of_network = _split(checked(model, techniques))
    transformed, report = _transformed(model, by_layer, options)
    if of_network is not None:
        transformed = quantized(transformed, of_network, calibration, example)
    if train is not None:
        # Likewise: replacements may hold what the model did not.
        _check_lowering(transformed, options)
        transformed = retrained(transformed, train)
    program = lower_as(transformed, example, options.lowering) if lower and example is not None else None
    return Optimized(transformed, program, report)


def _check_lowering(model: nn.Module, options: Optimization) -> None:
    """Whether the model can be lowered, if it is to be."""
    if options.lower and options.example is not None:
        prepare(model, options.example, replace(options.lowering, tune=False, exact=True))


def _split(techniques: Sequence[Technique]) -> tuple[list[Technique], NetworkTechnique | None]:
    """Those that replace layers, and that for the whole network, if there is one."""
    of_network = [technique for technique in techniques if isinstance(technique, NetworkTechnique)]
    if len(of_network) > 1:
        names = ", ".join(technique.name for technique in of_network)
        raise InvalidArgument("techniques", expected="at most one for the network as a whole", found=names)
    return [t for t in techniques if not isinstance(t, NetworkTechnique)], of_network[0] if of_network else None


def _transformed(model: nn.Module, techniques: Sequence[Technique], options: Optimization) -> tuple[nn.Module, Report]:
    """The model with layers replaced where that is worth it, and the report."""
    example, lowering = options.example, options.lowering
    if not techniques:
        return copied(model), Report(())
    by_time = options.policy == "faster" and example is not None
    whole = WholeNetwork.of(model, example, lowering) if by_time and example is not None else None
    judge = FasterBy(margin=options.margin, options=replace(lowering, fallback=False))
    transformed, report = transform(
        model,
        techniques,
        example=example,
        calibration=options.calibration,
        keep_if=options.policy,
        judge=judge if by_time else None,
        recover=options.trains_between,
        lanes=lowering.cpu.lanes,
    )
    if whole is None:
        return transformed, report
    report = replace(report, outlook=whole.outlook(report.rows))
    if any(row.replaced for row in report.rows):
        report = replace(report, network=whole.times(transformed))
        if report.network is not None and report.network.after_ms > _NOISE * report.network.before_ms:
            return copied(model), report.undone()
    return transformed, report
