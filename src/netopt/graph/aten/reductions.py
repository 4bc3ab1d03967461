"""Sums, means, extremes and what is made of them."""

from __future__ import annotations

import math
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.numerics import BOOL
from netopt.ops import ArgReduce, Arithmetic, Concat, Pointwise, Reduce, Reshape, Slice, SpatialMean


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
    """Sums of whole numbers are of 64 bits, as PyTorch's; of truth the largest is or, and the smallest and."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x = context.cast(args["self"], context.result_format(args.get("dtype")))
        return reduce(context, function, x, args.get("dim"), keepdim=args.get("keepdim", False))

    return importer


def _values(function: str) -> Importer:
    """The values of max or min along an axis, and their indices; what nobody reads is dropped later."""
    return lambda context, args: (
        reduce(context, function, args["self"], args["dim"], keepdim=args["keepdim"]),
        _index(context, f"arg{function}", args["self"], args["dim"], keepdim=args["keepdim"]),
    )


def _index(context: Context, function: str, x: str, dim: int | None, *, keepdim: bool) -> str:
    """Where x is largest or smallest along an axis, or without one in all its elements."""
    shape = context.shape(x)
    if dim is None or not shape:
        flat = context.add(ArgReduce(function, 0), context.add(Reshape((math.prod(shape),)), x))
        return context.add(Reshape((1,) * len(shape) if keepdim else ()), flat)
    axis = context.axis(x, dim)
    index = context.add(ArgReduce(function, axis), x)
    return index if keepdim else context.add(Reshape(shape[:axis] + shape[axis + 1 :]), index)


def _arg(function: str) -> Importer:
    return lambda context, args: _index(context, function, args["self"], args["dim"], keepdim=args["keepdim"])


def _truth(function: str) -> Importer:
    """Whether any, or all, elements are true."""
    return lambda context, args: reduce(
        context, function, context.cast(args["self"], BOOL), args.get("dim"), keepdim=args.get("keepdim", False)
    )


def _running_sum(context: Context, args: dict[str, Any]) -> Imported:
    """Each element plus the one 1, 2, 4, ... places before, until all before are in.

    Source: Hillis and Steele, Data Parallel Algorithms, 1986.
    """
    x, format_ = args["self"], context.result_format(args.get("dtype"))
    if not context.shape(x):
        return context.cast(x, format_)
    y, axis = context.cast(x, format_), context.axis(x, args["dim"])
    shape, step = context.shape(x), 1
    while step < shape[axis]:
        zeros = torch.zeros((*shape[:axis], step, *shape[axis + 1 :]), dtype=format_.tensor_dtype)
        before = context.builder.add_constant(f"{context.wish}_zeros", zeros, format_)
        shifted = context.add(Concat(axis), before, context.add(Slice(axis, 0, shape[axis] - step), y))
        y, step = context.add(Arithmetic("add"), y, shifted), 2 * step
    return y


def variance(context: Context, args: dict[str, Any]) -> str:
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
    return context.add(Pointwise("sqrt"), variance(context, args))


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
    "argmax.default": _arg("argmax"),
    "argmin.default": _arg("argmin"),
    "any.default": _truth("max"),
    "any.dim": _truth("max"),
    "any.dims": _truth("max"),
    "all.default": _truth("min"),
    "all.dim": _truth("min"),
    "all.dims": _truth("min"),
    "cumsum.default": _running_sum,
    "var.dim": variance,
    "var.correction": variance,
    "std.dim": _deviation,
    "std.correction": _deviation,
}
