"""Normalization and distances that are made of reductions."""

from __future__ import annotations

import math
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.layers import batch_norm, group_norm
from netopt.graph.aten.products import multiply
from netopt.graph.aten.reductions import reduce, variance
from netopt.ops import Arithmetic, Expand, Permute, Pointwise, Reshape


def _instance_norm(context: Context, args: dict[str, Any]) -> Imported:
    """Each channel of each image on its own; or with the statistics that training kept.

    Source: Ulyanov et al., 1607.08022.
    """
    if not args["use_input_stats"]:
        return batch_norm(context, {**args, "training": False})[0]
    groups = context.shape(args["input"])[1]
    return group_norm(context, {**args, "num_groups": groups})


def _vector_norm(context: Context, args: dict[str, Any]) -> Imported:
    """(sum |x|^p)^(1/p); for infinity the largest or smallest magnitude, for 0 the number that is not 0."""
    if args.get("dtype") not in (None, torch.float32):
        raise UnsupportedModel("vector norm", expected="float32", found=args["dtype"], layer=context.layer)
    order = 2.0 if args["ord" if "ord" in args else "p"] is None else float(args["ord" if "ord" in args else "p"])
    return norm(context, args["self"], order, args["dim"], keepdim=args["keepdim"])


def norm(context: Context, x: str, order: float, dims: list[int] | int | None, *, keepdim: bool) -> str:
    if order == 2.0:
        square = context.add(Arithmetic("mul"), x, x)
        return context.add(Pointwise("sqrt"), reduce(context, "sum", square, dims, keepdim=keepdim))
    magnitude = context.add(Pointwise("abs"), x)
    if math.isinf(order):
        return reduce(context, "max" if order > 0 else "min", magnitude, dims, keepdim=keepdim)
    if order == 1.0:
        return reduce(context, "sum", magnitude, dims, keepdim=keepdim)
    if order <= 0:
        raise UnsupportedModel("vector norm", expected="an order above 0", found=order, layer=context.layer)
    powers = context.add(Pointwise("power", (order,)), magnitude)
    return context.add(Pointwise("power", (1.0 / order,)), reduce(context, "sum", powers, dims, keepdim=keepdim))


def _logsumexp(context: Context, args: dict[str, Any]) -> Imported:
    """The largest plus the logarithm of the sum of what is left, so that nothing overflows."""
    x, dims, keepdim = args["self"], args["dim"], args["keepdim"]
    most = reduce(context, "max", x, dims, keepdim=True)
    # Of all -inf, and of one +inf, the largest itself: a difference would be NaN.
    finite = context.add(Pointwise("hardtanh", (-3.4028234663852886e38, 3.4028234663852886e38)), most)
    rest = context.add(Pointwise("exp"), context.add(Arithmetic("sub"), x, finite))
    total = context.add(Pointwise("log"), reduce(context, "sum", rest, dims, keepdim=True))
    y = context.add(Arithmetic("add"), total, finite)
    kept = context.shape(y)
    dims = [dims] if isinstance(dims, int) else dims
    axes = {context.axis(x, dim) for dim in dims} if dims else set(range(len(kept)))
    return y if keepdim else context.add(Reshape(tuple(n for i, n in enumerate(kept) if i not in axes)), y)


def _cosine_similarity(context: Context, args: dict[str, Any]) -> Imported:
    """x . y / (max(|x|, eps) max(|y|, eps))."""
    x, y = args["x1"], args["x2"]
    product = context.add(Arithmetic("mul"), x, y)
    axis = context.axis(product, args["dim"]) - len(context.shape(product))
    numerator = reduce(context, "sum", product, axis, keepdim=False)
    wide = [_along(context, each, axis, context.shape(product)[axis]) for each in (x, y)]
    sizes = [
        context.add(Arithmetic("maximum"), norm(context, each, 2.0, axis, keepdim=False), context.operand(args["eps"]))
        for each in wide
    ]
    return context.add(Arithmetic("div"), numerator, context.add(Arithmetic("mul"), *sizes))


def _along(context: Context, x: str, axis: int, size: int) -> str:
    """x with so many elements along an axis, counted from the end, of which it may have one."""
    shape = context.shape(x)
    if shape[axis] == size:
        return x
    target = list(shape)
    target[axis] = size
    return context.add(Expand(tuple(target)), x)


def _pairwise_distance(context: Context, args: dict[str, Any]) -> Imported:
    difference = context.add(Arithmetic("sub"), args["x1"], args["x2"])
    shifted = context.add(Arithmetic("add"), difference, context.operand(args["eps"]))
    return norm(context, shifted, float(args["p"]), -1, keepdim=args["keepdim"])


def _cdist(context: Context, args: dict[str, Any]) -> Imported:
    """The distance of each row of x1 to each of x2: of their differences, so that none cancels."""
    x, y = context.shape(args["x1"]), context.shape(args["x2"])
    rows = context.add(Reshape((*x[:-1], 1, x[-1])), args["x1"])
    columns = context.add(Reshape((*y[:-2], 1, *y[-2:])), args["x2"])
    return norm(context, context.add(Arithmetic("sub"), rows, columns), float(args["p"]), -1, keepdim=False)


def _variance_and_mean(context: Context, args: dict[str, Any]) -> Imported:
    mean = reduce(context, "mean", args["self"], args["dim"], keepdim=args["keepdim"])
    return variance(context, args), mean


def _prod(context: Context, args: dict[str, Any]) -> Imported:
    x = context.cast(args["self"], context.result_format(args.get("dtype")))
    dim = args.get("dim")
    if dim is None:
        return reduce(context, "prod", x, None, keepdim=False)
    return reduce(context, "prod", x, dim, keepdim=args["keepdim"])


def _bilinear(context: Context, args: dict[str, Any]) -> Imported:
    """y_o = x1 W_o x2 + b_o, as one product of x1 with all W, and one of each row with x2."""
    first, second, weight, bias = (args[name] for name in ("input1", "input2", "weight", "bias"))
    outputs, a, b = context.shape(weight)
    rows = context.shape(first)[:-1]
    flat = context.add(Reshape((a, outputs * b)), context.add(Permute((1, 0, 2)), weight))
    parts = context.add(Reshape((*rows, outputs, b)), multiply(context, first, flat))
    y = multiply(context, parts, context.add(Reshape((*rows, b, 1)), second))
    y = context.add(Reshape((*rows, outputs)), y)
    return y if bias is None else context.add(Arithmetic("add"), y, bias)


IMPORTERS: dict[str, Importer] = {
    "instance_norm.default": _instance_norm,
    "linalg_vector_norm.default": _vector_norm,
    "norm.ScalarOpt_dim": _vector_norm,
    "logsumexp.default": _logsumexp,
    "cosine_similarity.default": _cosine_similarity,
    "pairwise_distance.default": _pairwise_distance,
    "cdist.default": _cdist,
    "var_mean.correction": _variance_and_mean,
    "var_mean.dim": _variance_and_mean,
    "prod.default": _prod,
    "prod.dim_int": _prod,
    "bilinear.default": _bilinear,
}
