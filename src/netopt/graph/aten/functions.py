"""Elementary functions, and arithmetic that is made of other arithmetic."""

from __future__ import annotations

import math
from typing import Any

from netopt.errors import UnsupportedModel
from netopt.graph.aten.conditions import where
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.elementwise import power
from netopt.numerics import FLOAT32
from netopt.ops import Arithmetic, Compare, Pointwise, Where


def _function(name: str, factor: float = 1.0) -> Importer:
    """A function of one number, times a factor."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        y = context.add(Pointwise(name), context.real(args["self"]))
        return y if factor == 1.0 else context.add(Arithmetic("mul"), y, context.operand(factor))

    return importer


def _of_whole_too(name: str) -> Importer:
    """A function that PyTorch has of whole numbers, where it rounds nothing."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x = args["self"]
        return x if context.format(x).is_whole else context.add(Pointwise(name), x)

    return importer


def _exp2(context: Context, args: dict[str, Any]) -> Imported:
    scaled = context.add(Arithmetic("mul"), context.real(args["self"]), context.operand(math.log(2.0)))
    return context.add(Pointwise("exp"), scaled)


def _sign(context: Context, args: dict[str, Any]) -> Imported:
    x = args["self"]
    if not context.format(x).is_whole:
        return context.add(Pointwise("sign"), x)
    format_ = context.format(x)
    zero = context.operand(0, format_)
    above = context.cast(context.add(Compare("gt"), x, zero), format_)
    return context.add(Arithmetic("sub"), above, context.cast(context.add(Compare("lt"), x, zero), format_))


def _scaled_sum(function: str) -> Importer:
    """x + value * first (* or /) second."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        term = context.add(Arithmetic(function), args["tensor1"], args["tensor2"])
        if args["value"] != 1:
            term = context.add(Arithmetic("mul"), term, context.operand(float(args["value"])))
        return context.add(Arithmetic("add"), args["self"], term)

    return importer


def _lerp(context: Context, args: dict[str, Any]) -> Imported:
    """x + weight (end - x)."""
    difference = context.add(Arithmetic("sub"), args["end"], args["self"])
    scaled = context.add(Arithmetic("mul"), difference, context.operand(args["weight"]))
    return context.add(Arithmetic("add"), args["self"], scaled)


def _hypot(context: Context, args: dict[str, Any]) -> Imported:
    squares = [context.add(Pointwise("square"), args[name]) for name in ("self", "other")]
    return context.add(Pointwise("sqrt"), context.add(Arithmetic("add"), *squares))


def _power_of_tensor(context: Context, args: dict[str, Any]) -> Imported:
    """x to the power of one number that is known."""
    exponent = context.builder.constants.get(args["exponent"])
    if exponent is None or exponent.numel() != 1:
        raise UnsupportedModel("power", expected="one exponent that is known", found="a tensor", layer=context.layer)
    y = power(context, {**args, "exponent": exponent.item()})
    more = len(context.shape(args["exponent"])) - len(context.shape(args["self"]))
    assert isinstance(y, str)
    return (
        y if more <= 0 else context.add(Arithmetic("mul"), y, context.filled(None, (1,) * exponent.dim(), 1.0, "one"))
    )


def _power_of_number(context: Context, args: dict[str, Any]) -> Imported:
    """A known number to the power of x."""
    base = float(args["self"])
    if base <= 0:
        raise UnsupportedModel("power", expected="a base above 0", found=base, layer=context.layer)
    scaled = context.add(Arithmetic("mul"), context.real(args["exponent"]), context.operand(math.log(base)))
    return context.add(Pointwise("exp"), scaled)


def _quotient(rounding: str) -> Importer:
    """x / y, rounded down, or towards 0."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        format_ = context.result_format()
        x, y = (context.cast(args[name], format_) for name in ("self", "other"))
        if format_.is_whole:
            return context.add(Arithmetic("floor_divide" if rounding == "floor" else "truncate_divide"), x, y)
        return context.add(Pointwise(rounding), context.add(Arithmetic("div"), x, y))

    return importer


def _quotient_by_mode(context: Context, args: dict[str, Any]) -> Imported:
    modes = {"floor": "floor", "trunc": "trunc"}
    if args["rounding_mode"] not in modes:
        return context.add(Arithmetic("div"), *(context.cast(args[name], FLOAT32) for name in ("self", "other")))
    return _quotient(modes[args["rounding_mode"]])(context, args)


def _remainder(rounding: str) -> Importer:
    """x - y times the rounded quotient; so its sign is that of y, or with a quotient towards 0 that of x."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        format_ = context.result_format()
        x, y = (context.cast(args[name], format_) for name in ("self", "other"))
        quotient = _quotient(rounding)(context, {"self": x, "other": y})
        assert isinstance(quotient, str)
        return context.add(Arithmetic("sub"), x, context.add(Arithmetic("mul"), quotient, y))

    return importer


def _threshold(context: Context, args: dict[str, Any]) -> Imported:
    small = context.add(Compare("le"), args["self"], context.operand(float(args["threshold"])))
    return context.add(Where(), small, context.operand(float(args["value"])), args["self"])


def _rrelu(context: Context, args: dict[str, Any]) -> Imported:
    """In eval mode the slope is the mean of its bounds."""
    if args["training"]:
        raise UnsupportedModel("rrelu with random slopes in eval mode", layer=context.layer, fix="use torch.nn.RReLU")
    return context.add(Pointwise("leaky_relu", ((float(args["lower"]) + float(args["upper"])) / 2,)), args["self"])


def _nan_to_num(context: Context, args: dict[str, Any]) -> Imported:
    x = args["self"]
    largest = 3.4028234663852886e38
    high = largest if args["posinf"] is None else float(args["posinf"])
    low = -largest if args["neginf"] is None else float(args["neginf"])
    is_nan = context.add(Compare("ne"), x, x)
    y = where(context, is_nan, 0.0 if args["nan"] is None else float(args["nan"]), x)
    y = where(context, context.add(Compare("eq"), y, context.operand(math.inf)), high, y)
    return where(context, context.add(Compare("eq"), y, context.operand(-math.inf)), low, y)


IMPORTERS: dict[str, Importer] = {
    **{f"{name}.default": _function(name) for name in ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh")},
    **{f"{name}.default": _function(name) for name in ("expm1", "log1p")},
    **{f"{name}.default": _of_whole_too(name) for name in ("ceil", "floor", "round", "trunc")},
    "log10.default": _function("log", 1.0 / math.log(10.0)),
    "log2.default": _function("log", 1.0 / math.log(2.0)),
    "exp2.default": _exp2,
    "sign.default": _sign,
    "addcmul.default": _scaled_sum("mul"),
    "addcdiv.default": _scaled_sum("div"),
    "lerp.Scalar": _lerp,
    "lerp.Tensor": _lerp,
    "hypot.default": _hypot,
    "pow.Tensor_Tensor": _power_of_tensor,
    "pow.Scalar": _power_of_number,
    "floor_divide.default": _quotient("floor"),
    "div.Tensor_mode": _quotient_by_mode,
    "remainder.Scalar": _remainder("floor"),
    "remainder.Tensor": _remainder("floor"),
    "fmod.Scalar": _remainder("trunc"),
    "fmod.Tensor": _remainder("trunc"),
    "threshold.default": _threshold,
    "rrelu.default": _rrelu,
    "nan_to_num.default": _nan_to_num,
}
