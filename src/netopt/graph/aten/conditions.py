"""Comparisons, truth and choices by it."""

from __future__ import annotations

import math
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.numerics import BOOL, FLOAT32, INT64, NumberFormat
from netopt.ops import Arithmetic, Compare, Pointwise, Where


def _common(context: Context, *values: str | float) -> NumberFormat:
    """The format that PyTorch compares values in: of tensors the wider, and float32 beside a number with a fraction."""
    formats = [context.format(value) for value in values if isinstance(value, str)]
    if not all(format_.is_whole for format_ in formats) or any(isinstance(value, float) for value in values):
        return FLOAT32
    dtype = formats[0].tensor_dtype
    for format_ in formats[1:]:
        dtype = torch.promote_types(dtype, format_.tensor_dtype)
    wide = any(not isinstance(value, str | bool) for value in values)
    by_dtype = {format_.tensor_dtype: format_ for format_ in formats}
    # A whole number that the tensor's format may not have is compared in 64 bits.
    return INT64 if wide else by_dtype.get(dtype, INT64)


def _compare(function: str) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        format_ = _common(context, args["self"], args["other"])
        operands = (context.cast(args[name], format_) for name in ("self", "other"))
        return context.add(Compare(function), *operands)

    return importer


def _both(function: str) -> Importer:
    """And, or: of what is not 0."""
    return lambda context, args: context.add(
        Arithmetic(function), context.cast(args["self"], BOOL), context.cast(args["other"], BOOL)
    )


def _differs(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Compare("ne"), context.cast(args["self"], BOOL), context.cast(args["other"], BOOL))


def _not(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Compare("eq"), context.cast(args["self"], BOOL), context.operand(False, BOOL))


def _of_truth(importer: Importer) -> Importer:
    """For operations on bits, which on truth are logical; those on whole numbers are refused."""

    def checked(context: Context, args: dict[str, Any]) -> Imported:
        if context.result_format() != BOOL:
            raise UnsupportedModel("operations on bits", expected="bool", found=context.dtype, layer=context.layer)
        return importer(context, args)

    return checked


def where(context: Context, condition: str, one: str | float, other: str | float) -> str:
    """One or the other by a condition, in the format of the result."""
    format_ = context.result_format()
    return context.add(Where(), context.cast(condition, BOOL), context.cast(one, format_), context.cast(other, format_))


def _where(context: Context, args: dict[str, Any]) -> Imported:
    return where(context, args["condition"], args["self"], args["other"])


def _masked_fill(context: Context, args: dict[str, Any]) -> Imported:
    return where(context, args["mask"], args["value"], args["self"])


def _triangle(upper: bool) -> Importer:
    """The elements on one side of a diagonal, and zeros on the other."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        ones = torch.ones(context.shape(args["self"])[-2:], dtype=torch.bool)
        kept = ones.triu(args["diagonal"]) if upper else ones.tril(args["diagonal"])
        return where(context, context.builder.add_constant(f"{context.wish}_side", kept, BOOL), args["self"], 0)

    return importer


def _is_nan(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Compare("ne"), args["self"], args["self"])


def _is_infinite(context: Context, args: dict[str, Any]) -> Imported:
    magnitude = context.add(Pointwise("abs"), context.real(args["self"]))
    return context.add(Compare("eq"), magnitude, context.operand(math.inf))


def _is_finite(context: Context, args: dict[str, Any]) -> Imported:
    magnitude = context.add(Pointwise("abs"), context.cast(args["self"], FLOAT32))
    return context.add(Compare("lt"), magnitude, context.operand(math.inf))


def _fill(context: Context, args: dict[str, Any]) -> Imported:
    """All elements the same: the shape alone matters of what was there."""
    format_ = context.result_format()
    value = args["value"]
    if isinstance(value, str):
        known = context.builder.constants.get(value)
        if known is None:
            return _filled(context, args["self"], value)
        value = known.item()
    full = torch.full(context.shape(args["self"]), value, dtype=format_.tensor_dtype)
    return context.builder.add_constant(context.wish, full, format_)


def _filled(context: Context, x: str, value: str) -> str:
    """A computed number in all places of x."""
    always = torch.ones(context.shape(x), dtype=torch.bool)
    return where(context, context.builder.add_constant(f"{context.wish}_all", always, BOOL), value, x)


IMPORTERS: dict[str, Importer] = {
    **{
        f"{name}.{kind}": _compare(name)
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
        for kind in ("Tensor", "Scalar")
    },
    "logical_and.default": _both("mul"),
    "logical_or.default": _both("maximum"),
    "logical_xor.default": _differs,
    "logical_not.default": _not,
    "bitwise_and.Tensor": _of_truth(_both("mul")),
    "bitwise_and.Scalar": _of_truth(_both("mul")),
    "bitwise_or.Tensor": _of_truth(_both("maximum")),
    "bitwise_or.Scalar": _of_truth(_both("maximum")),
    "bitwise_xor.Tensor": _of_truth(_differs),
    "bitwise_xor.Scalar": _of_truth(_differs),
    "__and__.Tensor": _of_truth(_both("mul")),
    "__and__.Scalar": _of_truth(_both("mul")),
    "__or__.Tensor": _of_truth(_both("maximum")),
    "__or__.Scalar": _of_truth(_both("maximum")),
    "__xor__.Tensor": _of_truth(_differs),
    "__xor__.Scalar": _of_truth(_differs),
    "bitwise_not.default": _of_truth(_not),
    "where.self": _where,
    "where.ScalarSelf": _where,
    "where.ScalarOther": _where,
    "where.Scalar": _where,
    "masked_fill.Scalar": _masked_fill,
    "masked_fill.Tensor": _masked_fill,
    "triu.default": _triangle(upper=True),
    "tril.default": _triangle(upper=False),
    "isnan.default": _is_nan,
    "isinf.default": _is_infinite,
    "isfinite.default": _is_finite,
    "fill.Scalar": _fill,
    "fill.Tensor": _fill,
}
