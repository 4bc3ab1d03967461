"""Sums, means, extremes and what is made of them."""

from __future__ import annotations

import math
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.ops import Arithmetic, Pointwise, Reduce, Reshape, SpatialMean


def reduce(context: Context, function: str, x: str, dims: list[int] | int | None, *, keepdim: bool) -> str:
    """The reduction of x over these axes, or over all where there are none: one op for each run of neighbours."""
    shape = context.shape(x)
    dims = [dims] if isinstance(dims, int) else dims
    axes = sorted(context.axis(x, dim) for dim in dims) if dims else list(range(len(shape)))
    for axis in reversed(axes if shape else []):
        if axis + 1 in axes:
            continue
        first = axis
        while first - 1 in axes:
            first -= 1
        if function == "mean" and len(shape) == 4 and axes == [2, 3]:
            x = context.add(SpatialMean(), x)
        else:
            x = context.add(Reduce(function, first, axis - first + 1), x)
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return x if keepdim or kept == context.shape(x) else context.add(Reshape(kept), x)


def _reduce(function: str) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        if args.get("dtype") not in (None, torch.float32):
            raise UnsupportedModel(function, expected="dtype float32", found=args["dtype"], layer=context.layer)
        return reduce(context, function, args["self"], args.get("dim"), keepdim=args.get("keepdim", False))

    return importer


def _values(function: str) -> Importer:
    """The values of max or min along an axis; whoever reads the indices is told that there are none."""
    return lambda context, args: (
        reduce(context, function, args["self"], args["dim"], keepdim=args["keepdim"]),
        "",
    )


def _variance(context: Context, args: dict[str, Any]) -> str:
    """The mean square of the differences from the mean, times n / (n - correction).

    Two passes: the one-pass formula loses all digits where mean^2 >> variance.
    """
    x, dims = args["self"], args.get("dim")
    correction = args.get("correction")
    if correction is None:
        correction = 1 if args.get("unbiased", True) else 0
    mean = reduce(context, "mean", x, dims, keepdim=True)
    size = math.prod(context.shape(x)) // math.prod(context.shape(mean))
    if size <= correction:
        raise UnsupportedModel("variance", expected=f"more than {correction} elements", found=size, layer=context.layer)
    difference = context.add(Arithmetic("sub"), x, mean)
    square = context.add(Arithmetic("mul"), difference, difference)
    total = reduce(context, "sum", square, dims, keepdim=args.get("keepdim", False))
    return context.add(Arithmetic("div"), total, context.operand(size - correction))


def _deviation(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Pointwise("sqrt"), _variance(context, args))


def _norm(context: Context, args: dict[str, Any]) -> Imported:
    """The square root of the sum of squares."""
    if args["ord"] != 2 or args.get("dtype") not in (None, torch.float32):
        raise UnsupportedModel("vector norm", expected="order 2 in float32", found=args["ord"], layer=context.layer)
    square = context.add(Arithmetic("mul"), args["self"], args["self"])
    return context.add(Pointwise("sqrt"), reduce(context, "sum", square, args["dim"], keepdim=args["keepdim"]))


IMPORTERS: dict[str, Importer] = {
    "sum.default": _reduce("sum"),
    "sum.dim_IntList": _reduce("sum"),
    "mean.default": _reduce("mean"),
    "mean.dim": _reduce("mean"),
    "amax.default": _reduce("max"),
    "amin.default": _reduce("min"),
    "max.default": _reduce("max"),
    "min.default": _reduce("min"),
    "max.dim": _values("max"),
    "min.dim": _values("min"),
    "var.dim": _variance,
    "var.correction": _variance,
    "std.dim": _deviation,
    "std.correction": _deviation,
    "linalg_vector_norm.default": _norm,
}
