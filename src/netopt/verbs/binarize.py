"""Whole networks made binary: the three verbs of CNTK's netopt for convolutions, and one for layers of all kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.example import Example
from netopt.program.lower import lower_as
from netopt.program.options import Lowering, Precision
from netopt.program.program import Program
from netopt.quantization.signs.block import low_bit_layers
from netopt.quantization.signs.layers import LowBitConv1d, LowBitConv2d
from netopt.quantization.signs.techniques import XNOR, Binary, LowBitTechnique
from netopt.quantization.signs.training import binarize_weights
from netopt.transform.apply import KeepIf, Train, retrained, transform
from netopt.transform.layer_report import Report
from netopt.transform.reparametrized import plain_type
from netopt.transform.select import Layer, Predicate
from netopt.transform.technique import Keep
from netopt.verbs.optimize import Optimized, optimize

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True)
class _Convolutions(LowBitTechnique):
    """Another technique, for convolutions alone; the report has a row for each, whatever became of it.

    Attributes:
        technique: what replaces them.
        first: name of the network's first convolution.
    """

    technique: LowBitTechnique
    first: str
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)

    @property
    def name(self) -> str:
        return self.technique.name

    @property
    def weight_form(self):  # type: ignore[no-untyped-def]  # the technique's
        return self.technique.weight_form

    def deployed(self, module: nn.Module) -> nn.Module:
        return self.technique.deployed(module)

    def replace(self, layer: Layer) -> nn.Module | Keep:
        if type(layer.module) not in self.technique.handles:
            return Keep(f"a {type(layer.module).__name__} has no binary form")
        if self.select is None and layer.name == self.first:
            return Keep("is the first convolution, which is left as it is unless it is selected")
        if self.select is None and layer.is_last:
            return Keep("is the last layer, which is left as it is unless it is selected")
        # Selected by now: by the user, or by default.
        return dataclasses.replace(self.technique, select=_everything).replace(layer)


def _everything(_: Layer) -> bool:
    return True


def convert_to_binary_convolution(
    model: nn.Module,
    filter_function: Predicate | None = None,
    *,
    technique: LowBitTechnique = XNOR(),  # noqa: B008  # it is frozen
    on_report: Callable[[Report], None] | None = None,
) -> nn.Module:
    """Step 1: a new model in which convolutions are binary and can be trained; the caller's is not changed.

    The trained weights stay, as latent weights, and so do biases and what comes after the convolutions.

    Args:
        model: a trained network.
        filter_function: whether to binarize a layer; it is asked for every convolution, with a `netopt.Layer`. None:
            all but the network's first convolution and its last layer.
        technique: `XNOR()`, `Binary(shortcut=True, ...)`, `BinaryWeight()`, ...
        on_report: gets the report, with a row for each convolution; such as `print`.

    Raises:
        InvalidType: an argument is not what it should be.
        InvalidArgument: no convolution was replaced; says why for each.
    """
    converted, report = transform(model, _of_convolutions(model, technique, filter_function), keep_if="always")
    if on_report is not None:
        on_report(report)
    if not any(row.replaced for row in report.rows):
        raise InvalidArgument(
            "model",
            expected="a convolution to binarize",
            found="; ".join(f"{row.layer or 'the model'}: {row.reason}" for row in report.rows) or "no convolution",
        )
    return converted


def convert_to_native_binary_convolution(
    model: nn.Module,
    example: Example,
    *,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Program:
    """Step 3: the trained binary network as a program of native kernels.

    Args:
        model: from `convert_to_binary_convolution`, trained.
        example: an input, for its shapes.
        threads: see `netopt.lower`. So are the options below.
        tune: see `netopt.lower`.
        exact: see `netopt.lower`.
        precision: see `netopt.lower`.
        fallback: see `netopt.lower`.
        target: see `netopt.lower`.

    Raises:
        InvalidType: `model` is none.
        InvalidArgument: it has no binary convolution, or one whose weights are not binary yet.
        UnsupportedModel: it cannot be lowered; names the layer.
    """
    lowering = Lowering(threads=threads, tune=tune, exact=exact, precision=precision, fallback=fallback, target=target)
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    if not any(isinstance(layer, LowBitConv1d | LowBitConv2d) for layer in model.modules()):
        fix = "call convert_to_binary_convolution first"
        raise InvalidArgument("model", expected="a binary convolution", found="none", fix=fix)
    if any(layer.final_form is not None for layer in low_bit_layers(model)):
        fix = "call binarize_weights and train once more"
        raise InvalidArgument("model", expected="binary weights", found="the first of two stages", fix=fix)
    return lower_as(model, example, lowering)


def binarize_convolution(
    model: nn.Module,
    training_function: Train,
    filter_function: Predicate | None = None,
    *,
    example: Example,
    technique: LowBitTechnique = XNOR(),  # noqa: B008  # it is frozen
    keep_if: KeepIf | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[Program]:
    """All three steps: convolutions made binary, trained, and lowered.

    Args:
        model: a trained network; it is not changed.
        training_function: gets the binary model; trains it in place or returns another. With `two_stages` it is called
            twice: with binary inputs alone, and with binary weights, too.
        filter_function: see `convert_to_binary_convolution`.
        example: an input, for shapes and measurements.
        technique: see `convert_to_binary_convolution`.
        keep_if: see `netopt.optimize`; by default a convolution is replaced only where its lowered replacement was
            measured to be faster.
        threads: see `netopt.lower`. So are the options below.
        tune: see `netopt.lower`.
        exact: see `netopt.lower`.
        precision: see `netopt.lower`.
        fallback: see `netopt.lower`.
        target: see `netopt.lower`.

    Returns:
        The trained model, the program, and a report with a row for each convolution.

    Raises:
        InvalidType, InvalidArgument: an argument is not what it should be.
        UnsupportedModel: the model cannot be lowered; names the layer.
    """
    return optimize(
        model,
        _of_convolutions(model, technique, filter_function),
        train=_in_stages(training_function, technique),
        lower=True,
        example=example,
        keep_if=keep_if,
        threads=threads,
        tune=tune,
        exact=exact,
        precision=precision,
        fallback=fallback,
        target=target,
    )


def binarize(
    model: nn.Module,
    training_function: Train,
    filter_function: Predicate | None = None,
    *,
    example: Example,
    technique: LowBitTechnique = XNOR(),  # noqa: B008  # it is frozen
    keep_if: KeepIf | None = None,
    threads: int = 1,
    tune: bool = False,
    exact: bool = True,
    precision: Precision = "float32",
    fallback: bool = False,
    target: str | None = None,
) -> Optimized[Program]:
    """As `binarize_convolution`, for dense layers, too.

    Without a filter the network's first and last layer are left as they are.
    """
    _check(technique)
    if filter_function is not None:
        technique = dataclasses.replace(technique, select=filter_function)
    return optimize(
        model,
        technique,
        train=_in_stages(training_function, technique),
        lower=True,
        example=example,
        keep_if=keep_if,
        threads=threads,
        tune=tune,
        exact=exact,
        precision=precision,
        fallback=fallback,
        target=target,
    )


def _check(technique: object) -> None:
    if not isinstance(technique, LowBitTechnique):
        raise InvalidType("technique", expected="one of netopt.quantization, such as XNOR()", found=repr(technique))


def _of_convolutions(model: object, technique: LowBitTechnique, filter_function: Predicate | None) -> _Convolutions:
    _check(technique)
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    names = [name for name, module in model.named_modules() if plain_type(module) in _Convolutions.handles]
    select = technique.select if filter_function is None else filter_function
    return _Convolutions(technique=technique, first=names[0] if names else "", select=select)


def _in_stages(training_function: Train, technique: LowBitTechnique) -> Train:
    """The training function, or where there are two stages both of them."""
    if not callable(training_function):
        raise InvalidType("training_function", expected="a function of the model", found=repr(training_function))
    if not (isinstance(technique, Binary) and technique.two_stages):
        return training_function

    def both(model: nn.Module) -> nn.Module:
        model = retrained(model, training_function)
        # There are none where no layer was replaced.
        waits = any(layer.final_form is not None for layer in low_bit_layers(model))
        return retrained(binarize_weights(model), training_function) if waits else model

    return both
