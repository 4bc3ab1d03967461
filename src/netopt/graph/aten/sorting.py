"""Sorting by counting: the place of an element is the number of those that come before it."""

from __future__ import annotations

from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.indexing import gathered
from netopt.graph.aten.reductions import reduce
from netopt.graph.aten.shapes import part
from netopt.numerics import BOOL, INT64
from netopt.ops import ArgReduce, Arithmetic, Cast, Compare, Permute, Reshape

# Elements along the axis: their square is how many comparisons are made, and kept in memory.
_MOST = 512


def _sorted(context: Context, x: str, axis: int, *, descending: bool, count: int | None = None) -> tuple[str, str]:
    """The first `count` elements in order, and their indices; equal ones in the order in which they were."""
    size = context.shape(x)[axis]
    if size > _MOST:
        raise UnsupportedModel("sorting", expected=f"at most {_MOST} elements", found=size, layer=context.layer)
    last = len(context.shape(x)) - 1
    order = [i for i in range(last + 1) if i != axis] + [axis]
    moved = x if axis == last else context.add(Permute(tuple(order)), x)
    index = _order(context, moved, size, descending=descending)
    if count is not None and count < size:
        index = part(context, index, last, 0, count)
    if axis != last:
        index = context.add(Permute(tuple(order.index(i) for i in range(last + 1))), index)
    return gathered(context, x, axis, index), index


def _order(context: Context, x: str, size: int, *, descending: bool) -> str:
    """The indices, along the last axis, of the elements in order."""
    shape = context.shape(x)
    rank = _rank(context, x, size, descending=descending)
    # The element of which the place is 0, 1, 2 ...
    places = context.builder.add_constant(f"{context.wish}_places", torch.arange(size).reshape(size, 1), INT64)
    found = context.add(Compare("eq"), places, context.add(Reshape((*shape[:-1], 1, size)), rank))
    index = context.add(ArgReduce("argmax", len(shape)), found)
    return context.add(Reshape(shape), index)


def _rank(context: Context, x: str, size: int, *, descending: bool) -> str:
    """How many elements come before each: those that are smaller, or equal and earlier. NaN is larger than all."""
    shape = context.shape(x)
    one = context.add(Reshape((*shape, 1)), x)
    other = context.add(Reshape((*shape[:-1], 1, size)), x)
    if descending:
        before = _larger(context, other, one)
        after = _larger(context, one, other)
    else:
        before = _larger(context, one, other)
        after = _larger(context, other, one)
    # Neither before nor after is equal; of these the earlier ones count.
    equal = context.add(Compare("eq"), before, after)
    earlier = torch.ones(size, size, dtype=torch.bool).tril(-1)
    earlier_name = context.builder.add_constant(f"{context.wish}_earlier", earlier, BOOL)
    counts = context.add(Arithmetic("maximum"), before, context.add(Arithmetic("mul"), equal, earlier_name))
    return reduce(context, "sum", context.add(Cast("int64"), counts), -1, keepdim=False)


def _larger(context: Context, a: str, b: str) -> str:
    """Whether a is larger than b, which NaN is than all but NaN."""
    larger = context.add(Compare("gt"), a, b)
    if context.format(a).is_whole:
        return larger
    only_a = context.add(Compare("gt"), _is_nan(context, a), _is_nan(context, b))
    return context.add(Arithmetic("maximum"), larger, only_a)


def _is_nan(context: Context, x: str) -> str:
    return context.add(Compare("ne"), x, x)


def _sort(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    return _sorted(context, args["self"], axis, descending=args["descending"])


def _argsort(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    return _sorted(context, args["self"], axis, descending=args["descending"])[1]


def _topk(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    return _sorted(context, args["self"], axis, descending=args["largest"], count=args["k"])


IMPORTERS: dict[str, Importer] = {
    "sort.default": _sort,
    "sort.stable": _sort,
    "argsort.default": _argsort,
    "argsort.stable": _argsort,
    "topk.default": _topk,
}
