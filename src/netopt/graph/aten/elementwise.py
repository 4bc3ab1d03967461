"""Activations and arithmetic."""

from __future__ import annotations

import math
from typing import Any

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.numerics import BOOL
from netopt.ops import Arithmetic, Pointwise, Reshape, Slice


def _pointwise(function: str, *arguments: str) -> Importer:
    """An activation whose parameters are the ATen arguments of these names."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        parameters = tuple(float(args[name]) for name in arguments)
        return context.add(Pointwise(function, parameters), context.real(args["self"]))

    return importer


def _fixed_pointwise(function: str, *parameters: float) -> Importer:
    """An activation with parameters that its name implies."""
    return lambda context, args: context.add(Pointwise(function, parameters), context.real(args["self"]))


def _gelu(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Pointwise("gelu" if args["approximate"] == "none" else "gelu_tanh"), args["self"])


def _arithmetic(function: str, *, swapped: bool = False) -> Importer:
    """x op (alpha * y), or with `swapped` (y op alpha * x)."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        first, second = args["self"], args["other"]
        if swapped:
            first, second = second, first
        alpha = args.get("alpha", 1)
        format_ = context.result_format()
        first, second = context.cast(first, format_), context.cast(second, format_)
        if alpha != 1:
            second = context.add(Arithmetic("mul"), second, context.operand(alpha, format_))
        # Of truth, PyTorch's sum is or.
        name = "maximum" if format_ == BOOL and function == "add" else function
        return context.add(Arithmetic(name), first, second)

    return importer


def _clamp(context: Context, args: dict[str, Any]) -> Imported:
    """Between two bounds, numbers or tensors, of which one may be missing, or infinite, which is as good."""
    low, high = args.get("min"), args.get("max")
    if low is None and high is None:
        raise UnsupportedModel("clamp", expected="a minimum or a maximum", found="neither", layer=context.layer)
    low, high = (None if isinstance(bound, float) and bound == away else bound for bound, away in _bounds(low, high))
    format_ = context.result_format()
    x = context.cast(args["self"], format_)
    are_numbers = all(isinstance(bound, int | float) and math.isfinite(bound) for bound in (low, high))
    if are_numbers and not format_.is_whole:
        return context.add(Pointwise("hardtanh", (float(low), float(high))), x)  # type: ignore[arg-type]
    for function, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            x = context.add(Arithmetic(function), x, context.cast(bound, format_))
    return x


def _bounds(low: Any, high: Any) -> tuple[tuple[Any, float], tuple[Any, float]]:
    """Each bound, and the infinity that bounds nothing on its side."""
    return (low, -math.inf), (high, math.inf)


def power(context: Context, args: dict[str, Any]) -> Imported:
    """x^n: for whole n up to 8 in magnitude products and a reciprocal, for 1/2 a square root; else one function."""
    x, exponent = context.real(args["self"]), float(args["exponent"])
    if not math.isfinite(exponent):
        raise UnsupportedModel("power", expected="a finite exponent", found=exponent, layer=context.layer)
    if abs(exponent) == 0.5:
        return context.add(Pointwise("sqrt" if exponent > 0 else "rsqrt"), x)
    whole = abs(exponent)
    if whole % 1 or not 1 <= whole <= 8:
        return context.add(Pointwise("power", (exponent,)), x)
    factors: list[str] = []
    square = x
    for bit in range(int(whole).bit_length()):
        if bit:
            square = context.add(Pointwise("square"), square)
        if int(whole) >> bit & 1:
            factors.append(square)
    result = factors[0]
    for factor in factors[1:]:
        result = context.add(Arithmetic("mul"), result, factor)
    return result if exponent > 0 else context.add(Pointwise("reciprocal"), result)


def _glu(context: Context, args: dict[str, Any]) -> Imported:
    """The first half times the sigmoid of the second.

    Source: Dauphin et al., 1612.08083.
    """
    axis = context.axis(args["self"], args["dim"])
    size = context.shape(args["self"])[axis]
    first, second = (context.add(Slice(axis, at, at + size // 2), args["self"]) for at in (0, size // 2))
    return context.add(Arithmetic("mul"), first, context.add(Pointwise("sigmoid"), second))


def _prelu(context: Context, args: dict[str, Any]) -> Imported:
    """One known slope is that of leaky_relu, which layers take in; else there is one a channel, axis 1."""
    x, slope = args["self"], args["weight"]
    known = context.builder.constants.get(slope)
    if known is not None and known.numel() == 1:
        return context.add(Pointwise("leaky_relu", (known.item(),)), x)
    (channels,) = context.shape(slope)
    along = (channels,) + (1,) * max(0, len(context.shape(x)) - 2)
    return context.add(Arithmetic("prelu"), x, context.add(Reshape(along), slope))


def _negative(context: Context, args: dict[str, Any]) -> Imported:
    x, format_ = args["self"], context.format(args["self"])
    if not format_.is_whole:
        return context.add(Pointwise("neg"), x)
    return context.add(Arithmetic("sub"), context.operand(0, format_), x)


def _magnitude(context: Context, args: dict[str, Any]) -> Imported:
    x, format_ = args["self"], context.format(args["self"])
    if not format_.is_whole:
        return context.add(Pointwise("abs"), x)
    return context.add(Arithmetic("maximum"), x, context.add(Arithmetic("sub"), context.operand(0, format_), x))


IMPORTERS: dict[str, Importer] = {
    "prelu.default": _prelu,
    "relu.default": _pointwise("relu"),
    "relu6.default": _fixed_pointwise("hardtanh", 0.0, 6.0),
    "hardtanh.default": _pointwise("hardtanh", "min_val", "max_val"),
    "clamp.default": _clamp,
    "clamp_min.default": _clamp,
    "clamp_max.default": _clamp,
    "clamp.Tensor": _clamp,
    "clamp_min.Tensor": _clamp,
    "clamp_max.Tensor": _clamp,
    "maximum.default": _arithmetic("maximum"),
    "minimum.default": _arithmetic("minimum"),
    "max.other": _arithmetic("maximum"),
    "min.other": _arithmetic("minimum"),
    "pow.Tensor_Scalar": power,
    "glu.default": _glu,
    "log_sigmoid.default": _pointwise("logsigmoid"),
    "mish.default": _pointwise("mish"),
    "exp.default": _pointwise("exp"),
    "log.default": _pointwise("log"),
    "sqrt.default": _pointwise("sqrt"),
    "rsqrt.default": _pointwise("rsqrt"),
    "reciprocal.default": _pointwise("reciprocal"),
    "erf.default": _pointwise("erf"),
    "abs.default": _magnitude,
    "neg.default": _negative,
    "square.default": _pointwise("square"),
    "leaky_relu.default": _pointwise("leaky_relu", "negative_slope"),
    "elu.default": _pointwise("elu", "alpha", "scale", "input_scale"),
    "selu.default": _fixed_pointwise("elu", 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0),
    "celu.default": lambda context, args: context.add(
        Pointwise("elu", (float(args["alpha"]), 1.0, 1.0 / float(args["alpha"]))), args["self"]
    ),
    "gelu.default": _gelu,
    "silu.default": _pointwise("silu"),
    "sigmoid.default": _pointwise("sigmoid"),
    "tanh.default": _pointwise("tanh"),
    "hardswish.default": _pointwise("hardswish"),
    "hardsigmoid.default": _pointwise("hardsigmoid"),
    "softplus.default": _pointwise("softplus", "beta", "threshold"),
    "add.Tensor": _arithmetic("add"),
    "sub.Tensor": _arithmetic("sub"),
    "mul.Tensor": _arithmetic("mul"),
    "div.Tensor": _arithmetic("div"),
    "add.Scalar": _arithmetic("add"),
    "sub.Scalar": _arithmetic("sub"),
    "mul.Scalar": _arithmetic("mul"),
    "div.Scalar": _arithmetic("div"),
    "rsub.Scalar": _arithmetic("sub", swapped=True),
    "rsub.Tensor": _arithmetic("sub", swapped=True),
}
