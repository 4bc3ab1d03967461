"""Matrix products and attention."""

from __future__ import annotations

import math
import string
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
    """One product of two operands after the other: batch axes, axes of one alone, and axes that are summed over."""
    terms, output = _terms(context, args["equation"], [len(context.shape(x)) for x in args["tensors"]])
    operands = [_diagonals(context, *pair) for pair in zip(terms, args["tensors"], strict=True)]
    while len(operands) > 1:
        first, second, *rest = operands
        kept = {index for term, _ in rest for index in term} | set(output)
        operands = [_contracted(context, first, second, kept), *rest]
    term, x = operands[0]
    gone = [axis for axis, index in enumerate(term) if index not in output]
    x = reduce(context, "sum", x, gone, keepdim=False) if gone else x
    term = "".join(index for index in term if index in output)
    return context.add(Permute(tuple(term.index(index) for index in output)), x) if term != output else x


def _terms(context: Context, equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The indices of each operand and of the result, with letters of their own for what "..." stands for."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    widest = max((rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term), default=0)
    for number, (term, rank) in enumerate(zip(terms, ranks, strict=True)):
        size = rank - len(term) + 3
        terms[number] = term.replace("...", "".join(free[widest - size : widest]))
    if not arrow:
        joined = "".join(terms)
        output = "".join(free[:widest]) + "".join(sorted(i for i in set(joined) - set(free) if joined.count(i) == 1))
    output = output.replace("...", "".join(free[:widest]))
    if len(set(output)) != len(output) or not set(output) <= set("".join(terms)):
        raise UnsupportedModel("einsum", expected="each index of the result once", found=equation, layer=context.layer)
    return terms, output


def _diagonals(context: Context, term: str, x: str) -> tuple[str, str]:
    if len(set(term)) != len(term):
        raise UnsupportedModel(
            "einsum", expected="no index twice in an operand", found=term, layer=context.layer, fix="use diagonal()"
        )
    return term, x


def _contracted(context: Context, first: tuple[str, str], second: tuple[str, str], kept: set[str]) -> tuple[str, str]:
    """The product of two operands, summed over the indices that nothing else has; and its indices."""
    a, x = _summed(context, *first, kept | set(second[0]))
    b, y = _summed(context, *second, kept | set(first[0]))
    sizes = dict(zip(a, context.shape(x), strict=True)) | dict(zip(b, context.shape(y), strict=True))
    if any(sizes[i] != n for term, value in ((a, x), (b, y)) for i, n in zip(term, context.shape(value), strict=True)):
        raise UnsupportedModel("einsum", expected="equal sizes of an index", found=f"{a}, {b}", layer=context.layer)
    batch = [index for index in a if index in b and index in kept]
    summed = [index for index in a if index in b and index not in kept]
    left, right = ([i for i in term if i not in batch and i not in summed] for term in (a, b))
    groups = [math.prod(sizes[i] for i in group) for group in (left, summed, right)]
    leading = [sizes[i] for i in batch]
    x = context.add(Permute(tuple(a.index(i) for i in (*batch, *left, *summed))), x)
    y = context.add(Permute(tuple(b.index(i) for i in (*batch, *summed, *right))), y)
    x = context.add(Reshape((*leading, groups[0], groups[1])), x)
    y = context.add(Reshape((*leading, groups[1], groups[2])), y)
    # Without a sum the product is one of each with each.
    z = context.add(Matmul(), x, y) if summed else context.add(Arithmetic("mul"), x, y)
    order = [*batch, *left, *right]
    return "".join(order), context.add(Reshape(tuple(sizes[i] for i in order)), z)


def _summed(context: Context, term: str, x: str, kept: set[str]) -> tuple[str, str]:
    """An operand without the indices that it alone has."""
    gone = [axis for axis, index in enumerate(term) if index not in kept]
    if not gone:
        return term, x
    return "".join(i for i in term if i in kept), reduce(context, "sum", x, gone, keepdim=False)


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
