"""Techniques that store weights, and what layers read, in few bits: what `netopt.quantize` and `optimize` are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics import Grouped
from netopt.quantization.fixed_point.calibration import MSE, Method
from netopt.transform.select import Layer
from netopt.transform.technique import Keep, Technique

Scales = Literal["power", "real", "best"]
# Layers that compute on codes.
_HANDLES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


@dataclass(frozen=True, kw_only=True)
class NetworkTechnique(Technique):
    """A technique for a network as a whole: it is applied last, wherever it stands among others."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = _HANDLES

    def replace(self, layer: Layer) -> nn.Module | Keep:
        raise InvalidType(
            self.name,
            expected="netopt.quantize or netopt.optimize, which apply it to the whole network",
            found="a call for one layer",
            layer=layer.name,
        )


@dataclass(frozen=True, kw_only=True)
class FixedPoint(NetworkTechnique):
    """Weights, and the values that layers read, as codes of few bits; see `netopt.numerics.FixedPoint`.

    Attributes:
        weights: bits of a weight: 8 or 16, or 2 to 7, which lie side by side in files.
        activations: bits of the values: 8, 16, or 7, which for values that are never negative a CPU without VNNI
            multiplies faster; None leaves values in float32.
        scales: "power": steps are powers of two, and scaling is a shift; "real": scales of 8 significant bits; "best":
            for each layer the one with the smaller error on the calibration inputs.
        per_channel: a step for each output of a layer, in place of one for all its weights.
        method: how the steps of values are found: `MSE()`, `MinMax()`, `Percentile(...)`, `KL()`, `SQNR()`.
        bias_correction: shift biases by what rounding the weights changes in the mean of a layer's output; None: where
            weights have fewer than 6 bits.
        equalize: scale neighbouring layers so that their channels have like ranges, before anything is rounded.
        adaround: learn whether weights are rounded up or down.
        learned: train the steps, too.
        select: which layers; None for all.
    """

    weights: int = 8
    activations: int | None = 8
    scales: Scales = "power"
    per_channel: bool = True
    method: Method = field(default_factory=MSE)
    bias_correction: bool | None = None
    equalize: bool = False
    adaround: bool = False
    learned: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.weights) is not int or self.weights not in (2, 3, 4, 5, 6, 7, 8, 16):
            raise InvalidArgument("weights of FixedPoint", expected="bits: 2 to 8, or 16", found=self.weights)
        if self.activations is not None and self.activations not in (7, 8, 16):
            raise InvalidArgument(
                "activations of FixedPoint", expected="bits: 7, 8 or 16; or None", found=self.activations
            )
        if self.scales not in get_args(Scales):
            raise InvalidArgument("scales of FixedPoint", expected='"power", "real" or "best"', found=repr(self.scales))
        if not isinstance(self.method, Method):
            raise InvalidType("method of FixedPoint", expected="MSE(), MinMax() ...", found=repr(self.method))
        for name in ("per_channel", "equalize", "adaround", "learned"):
            _expect_bool(self, name)
        if self.bias_correction is not None:
            _expect_bool(self, "bias_correction")

    @property
    def corrects_bias(self) -> bool:
        """Whether biases are corrected."""
        return self.weights < 6 if self.bias_correction is None else self.bias_correction


@dataclass(frozen=True, kw_only=True)
class WeightOnly(NetworkTechnique):
    """Weights of dense layers as codes with a scale for each group of inputs: a `netopt.numerics.Grouped` format.

    A dense layer at batch 1 takes the time to read its weights. Without codes for what layers read it needs no
    calibration; with them 4-bit weights are not only smaller, but also faster: unpacked floats take as long as reading.

    Attributes:
        bits: of a weight: 4 or 8.
        group: inputs that share a scale: a multiple of 8, up to 256.
        activations: bits of the values that the layers read: 8 or 16; None for float32.
        select: which layers; None for all.
    """

    bits: int = 8
    group: int = 64
    activations: int | None = None
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.bits) is not int or self.bits not in (4, 8):
            raise InvalidArgument("bits of WeightOnly", expected="4 or 8", found=self.bits)
        Grouped(self.bits, self.group)  # which refuses a group that there is not
        if self.activations not in (None, 8, 16):
            raise InvalidArgument("activations of WeightOnly", expected="8, 16 or None", found=self.activations)


def _expect_bool(technique: Technique, name: str) -> None:
    if not isinstance(getattr(technique, name), bool):
        found = repr(getattr(technique, name))
        raise InvalidType(f"{name} of {technique.name}", expected="True or False", found=found)
