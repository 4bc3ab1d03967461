"""Matrix products and attention."""

from __future__ import annotations

import math
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.reductions import reduce
from netopt.numerics import BOOL
from netopt.ops import Arithmetic, Expand, Matmul, Permute, Reshape, Softmax, Where


def _matmul(first: str, second: str) -> Importer:
    """The product of two ATen arguments; a vector is a row on the left, and a column on the right."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        return multiply(context, args[first], args[second])

    return importer


def multiply(context: Context, x: str, y: str) -> str:
    """x @ y, as PyTorch defines it for any numbers of axes."""
    a, b = context.shape(x), context.shape(y)
    if len(a) == 1:
        x = context.add(Reshape((1, *a)), x)
    if len(b) == 1:
        y = context.add(Reshape((*b, 1)), y)
    product = context.add(Matmul(), x, y)
    shape = context.shape(product)
    if len(b) == 1:
        shape = shape[:-1]
    if len(a) == 1:
        shape = shape[:-2] + shape[len(shape) - 1 + (len(b) == 1) :]
    return product if shape == context.shape(product) else context.add(Reshape(shape), product)


def along_axis(context: Context, x: str, axis: int, matrix: torch.Tensor) -> str:
    """x with the numbers along an axis multiplied by a constant: (n, m) makes m of n."""
    last = len(context.shape(x)) - 1
    weight = context.builder.add_constant(f"{context.wish}_matrix", matrix.float())
    if axis == last:
        return context.add(Matmul(), x, weight) if last else multiply(context, x, weight)
    order = [i for i in range(last + 1) if i != axis] + [axis]
    product = context.add(Matmul(), context.add(Permute(tuple(order)), x), weight)
    return context.add(Permute(tuple(order.index(i) for i in range(last + 1))), product)


def _add_product(first: str, second: str) -> Importer:
    """beta * self + alpha * first @ second."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        terms = [multiply(context, args[first], args[second]), args["self"]]
        for index, role in enumerate(("alpha", "beta")):
            if args[role] != 1:
                terms[index] = context.add(Arithmetic("mul"), terms[index], context.operand(args[role]))
        return context.add(Arithmetic("add"), *terms) if args["beta"] else terms[0]

    return importer


def _outer(context: Context, args: dict[str, Any]) -> Imported:
    column = context.add(Reshape((*context.shape(args["self"]), 1)), args["self"])
    return context.add(Arithmetic("mul"), column, args["vec2"])


# --- einsum


def _einsum(context: Context, args: dict[str, Any]) -> Imported:
    """Of two tensors: batch axes, axes of one alone, and axes that are summed over."""
    inputs, _, output = args["equation"].replace(" ", "").partition("->")
    terms = inputs.split(",")
    simple = len(terms) == 2 and "->" in args["equation"] and "." not in inputs
    if not simple or any(len(set(term)) != len(term) for term in (*terms, output)):
        raise UnsupportedModel(
            "einsum",
            expected="two tensors, an output, no '...' and no repeated index",
            found=args["equation"],
            layer=context.layer,
            fix="write it with @, permute and sum",
        )
    (a, b), (x, y) = terms, args["tensors"]
    batch = [index for index in a if index in b and index in output]
    summed = [index for index in a if index in b and index not in output]
    left, right = ([i for i in term if i not in batch and i not in summed] for term in (a, b))
    if not set(left) | set(right) <= set(output):
        raise UnsupportedModel(
            "einsum", expected="sums over indices of both tensors", found=args["equation"], layer=context.layer
        )
    sizes = dict(zip(a, context.shape(x), strict=True)) | dict(zip(b, context.shape(y), strict=True))
    groups = [math.prod(sizes[i] for i in group) for group in (left, summed, right)]
    leading = [sizes[i] for i in batch]
    x = context.add(Permute(tuple(a.index(i) for i in (*batch, *left, *summed))), x)
    y = context.add(Permute(tuple(b.index(i) for i in (*batch, *summed, *right))), y)
    x = context.add(Reshape((*leading, groups[0], groups[1])), x)
    y = context.add(Reshape((*leading, groups[1], groups[2])), y)
    z = context.add(Matmul(), x, y)
    order = [*batch, *left, *right]
    z = context.add(Reshape(tuple(sizes[i] for i in order)), z)
    return context.add(Permute(tuple(order.index(i) for i in output)), z)


# --- attention


def _attention(context: Context, args: dict[str, Any]) -> Imported:
    """softmax(q k^T * scale + mask) v.

    Source: Vaswani et al., 1706.03762, equation 1.
    """
    q, k, v = args["query"], args["key"], args["value"]
    if args["dropout_p"]:
        raise UnsupportedModel("attention", expected="dropout_p=0", found=args["dropout_p"], layer=context.layer)
    if args.get("enable_gqa"):
        k, v = (_repeated_heads(context, each, context.shape(q)[-3]) for each in (k, v))
    rows, columns = context.shape(q)[-2], context.shape(k)[-2]
    scale = args["scale"]
    scale = 1.0 / math.sqrt(context.shape(q)[-1]) if scale is None else float(scale)
    rank = len(context.shape(k))
    transposed = context.add(Permute((*range(rank - 2), rank - 1, rank - 2)), k)
    scores = context.add(Matmul(scale=scale), q, transposed)
    mask: str | None = args["attn_mask"]
    if args["is_causal"]:
        seen = torch.ones(rows, columns, dtype=torch.bool).tril()
        mask = context.builder.add_constant(f"{context.wish}_causal", seen, BOOL)
    visible = mask if isinstance(mask, str) and context.format(mask) == BOOL else None
    if visible is not None:
        mask = _mask(context, visible)
    if mask is not None:
        scores = context.add(Arithmetic("add"), scores, mask)
    weights = context.add(Softmax(len(context.shape(scores)) - 1), scores)
    if visible is not None:
        weights = _of_seen(context, weights, visible)
    return context.add(Matmul(), weights, v)


def _repeated_heads(context: Context, x: str, heads: int) -> str:
    """Each head, axis -3, so many times in a row that there are `heads`.

    Source: Ainslie et al., 2305.13245.
    """
    *lead, own, rows, columns = context.shape(x)
    apart = context.add(Reshape((*lead, own, 1, rows, columns)), x)
    wide = context.add(Expand((*lead, own, heads // own, rows, columns)), apart)
    return context.add(Reshape((*lead, heads, rows, columns)), wide)


def _mask(context: Context, visible: str) -> str:
    """Where keys are visible, as a mask to be added to the scores."""
    value = context.builder.constants.get(visible)
    if value is not None:
        return context.builder.add_constant(f"{visible}_added", _additive(value))
    return context.add(Where(), visible, context.operand(0.0), context.operand(-math.inf))


def _of_seen(context: Context, weights: str, visible: str) -> str:
    """The weights, and 0 for queries that see no key, where a softmax is not defined: as PyTorch has it."""
    value = context.builder.constants.get(visible)
    if value is not None and value.any(-1).all():
        return weights
    any_key = reduce(context, "max", visible, -1, keepdim=True)
    return context.add(Where(), any_key, weights, context.operand(0.0))


def _additive(visible: torch.Tensor) -> torch.Tensor:
    """0 where a key is visible, -inf where it is not."""
    return torch.zeros(visible.shape).masked_fill(~visible, -math.inf)


IMPORTERS: dict[str, Importer] = {
    "matmul.default": _matmul("self", "other"),
    "mm.default": _matmul("self", "mat2"),
    "bmm.default": _matmul("self", "mat2"),
    "mv.default": _matmul("self", "vec"),
    "dot.default": _matmul("self", "tensor"),
    "addmm.default": _add_product("mat1", "mat2"),
    "baddbmm.default": _add_product("batch1", "batch2"),
    "outer.default": _outer,
    "einsum.default": _einsum,
    "scaled_dot_product_attention.default": _attention,
}
