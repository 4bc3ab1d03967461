"""Activations and arithmetic."""

from __future__ import annotations

from typing import Any

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.ops import Arithmetic, Pointwise, Reshape, Slice


def _pointwise(function: str, *arguments: str) -> Importer:
    """An activation whose parameters are the ATen arguments of these names."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        parameters = tuple(float(args[name]) for name in arguments)
        return context.add(Pointwise(function, parameters), args["self"])

    return importer


def _fixed_pointwise(function: str, *parameters: float) -> Importer:
    """An activation with parameters that its name implies."""
    return lambda context, args: context.add(Pointwise(function, parameters), args["self"])


def _gelu(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Pointwise("gelu" if args["approximate"] == "none" else "gelu_tanh"), args["self"])


def _arithmetic(function: str, *, swapped: bool = False) -> Importer:
    """x op (alpha * y), or with `swapped` (y op alpha * x)."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        first, second = args["self"], args["other"]
        if swapped:
            first, second = second, first
        alpha = args.get("alpha", 1)
        first, second = context.operand(first), context.operand(second)
        if alpha != 1:
            second = context.add(Arithmetic("mul"), second, context.operand(alpha))
        return context.add(Arithmetic(function), first, second)

    return importer


def _clamp(context: Context, args: dict[str, Any]) -> Imported:
    low, high, x = args.get("min"), args.get("max"), args["self"]
    if low is not None and high is not None:
        return context.add(Pointwise("hardtanh", (float(low), float(high))), x)
    for function, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            return context.add(Arithmetic(function), x, context.operand(bound))
    raise UnsupportedModel("clamp", expected="a minimum or a maximum", found="neither", layer=context.layer)


def _power(context: Context, args: dict[str, Any]) -> Imported:
    """x^n for n a multiple of 1/2, of at most 8 in magnitude; whole ones as products and a reciprocal."""
    x, exponent = args["self"], float(args["exponent"])
    if exponent == 0 or abs(exponent) > 8 or (2 * exponent) % 1:
        raise UnsupportedModel(
            "power",
            expected="an exponent that is a multiple of 1/2, from -8 to 8 without 0",
            found=exponent,
            layer=context.layer,
        )
    whole, half = divmod(abs(exponent), 1)
    if half and not whole:
        return context.add(Pointwise("sqrt" if exponent > 0 else "rsqrt"), x)
    if half:
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


IMPORTERS: dict[str, Importer] = {
    "prelu.default": _prelu,
    "relu.default": _pointwise("relu"),
    "relu6.default": _fixed_pointwise("hardtanh", 0.0, 6.0),
    "hardtanh.default": _pointwise("hardtanh", "min_val", "max_val"),
    "clamp.default": _clamp,
    "clamp_min.default": _clamp,
    "clamp_max.default": _clamp,
    "maximum.default": _arithmetic("maximum"),
    "minimum.default": _arithmetic("minimum"),
    "max.other": _arithmetic("maximum"),
    "min.other": _arithmetic("minimum"),
    "pow.Tensor_Scalar": _power,
    "glu.default": _glu,
    "log_sigmoid.default": _pointwise("logsigmoid"),
    "mish.default": _pointwise("mish"),
    "exp.default": _pointwise("exp"),
    "log.default": _pointwise("log"),
    "sqrt.default": _pointwise("sqrt"),
    "rsqrt.default": _pointwise("rsqrt"),
    "reciprocal.default": _pointwise("reciprocal"),
    "erf.default": _pointwise("erf"),
    "abs.default": _pointwise("abs"),
    "neg.default": _pointwise("neg"),
    "square.default": _pointwise("square"),
    "floor.default": _pointwise("floor"),
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
