"""Parts of tensors by indices: rows of a table, and what is read or written at places that are named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.products import along_axis
from netopt.graph.aten.reductions import reduce
from netopt.numerics import BOOL, INT32, INT64, Shape
from netopt.ops import Arithmetic, Compare, Concat, Expand, Gather, Permute, Reduce, Reshape, Slice, Where

# An index that a graph has: of 64 or 32 bits.
_INDICES = (INT64, INT32)


def _as_index(context: Context, value: str) -> str:
    return value if context.format(value) in _INDICES else context.cast(value, INT64)


def _embedding(context: Context, args: dict[str, Any]) -> Imported:
    """Rows of a table. Its index of padding matters to gradients alone."""
    return _parts(context, args["weight"], 0, args["indices"])


def _index_select(context: Context, args: dict[str, Any]) -> Imported:
    x = args["self"]
    return _parts(context, x, context.axis(x, args["dim"]), args["index"])


def _parts(context: Context, x: str, axis: int, index: str) -> str:
    """The parts of x along an axis. Indices that are known are checked; a program checks those that it is given."""
    value, size = known(context, index), context.shape(x)[axis]
    if value is not None and not ((value >= -size) & (value < size)).all():
        found = value[(value < -size) | (value >= size)][0].item()
        raise UnsupportedModel("indices", expected=f"{-size} to {size - 1}", found=found, layer=context.layer)
    return context.add(Gather(axis), x, _as_index(context, index))


def known(context: Context, value: str) -> torch.Tensor | None:
    """The value of a constant."""
    return context.builder.constants.get(value)


def at_places(context: Context, x: str, places: torch.Tensor) -> str:
    """The elements of x, counted in row-major order, at known places, in the places' shape."""
    flat = context.add(Reshape((math.prod(context.shape(x)),)), x)
    index = context.builder.add_constant(f"{context.wish}_places", places.to(torch.int64), INT64)
    return context.add(Gather(0), flat, index)


def _index(context: Context, args: dict[str, Any]) -> Imported:
    """x[i, :, j, ...]: known indices name places; of computed ones there may be one, or several that are neighbours."""
    x, indices = args["self"], list(args["indices"])
    indices += [None] * (len(context.shape(x)) - len(indices))
    values = [None if index is None else known(context, index) for index in indices]
    named = [axis for axis, index in enumerate(indices) if index is not None]
    if all(values[axis] is not None for axis in named):
        if len(named) == 1 and values[named[0]].dtype != torch.bool:  # type: ignore[union-attr]
            return _parts(context, x, named[0], indices[named[0]])
        numbers = torch.arange(math.prod(context.shape(x))).reshape(context.shape(x))
        return at_places(context, x, numbers[_keys(values)])
    return _computed_index(context, x, {axis: indices[axis] for axis in named})


def _keys(values: Sequence[torch.Tensor | None]) -> tuple[Any, ...]:
    """Keys of a tensor; a mask of several axes takes the place of as many keys."""
    keys: list[Any] = [slice(None) if value is None else value for value in values]
    extra = sum(key.dim() - 1 for key in keys if isinstance(key, torch.Tensor) and key.dtype == torch.bool)
    return tuple(keys[: len(keys) - extra])


def _computed_index(context: Context, x: str, indices: dict[int, str]) -> str:
    """By indices of neighbouring axes, which become one axis and one index."""
    axes, shape = sorted(indices), context.shape(x)
    if any(context.format(index) == BOOL for index in indices.values()):
        raise UnsupportedModel(
            "a choice of elements by a computed mask, of which nobody knows how many there are",
            layer=context.layer,
            fix="keep all of them, with torch.where",
        )
    if axes != list(range(axes[0], axes[-1] + 1)):
        # As PyTorch: the axes of the indices come first then.
        order = (*axes, *(axis for axis in range(len(shape)) if axis not in axes))
        moved = context.add(Permute(order), x)
        return _computed_index(context, moved, {number: indices[axis] for number, axis in enumerate(axes)})
    sizes = shape[axes[0] : axes[-1] + 1]
    index = _as_index(context, indices[axes[0]])
    if len(axes) > 1:
        index = _joined(context, [context.cast(indices[axis], INT64) for axis in axes], sizes)
        x = context.add(Reshape((*shape[: axes[0]], math.prod(sizes), *shape[axes[-1] + 1 :])), x)
    return context.add(Gather(axes[0]), x, index)


def _joined(context: Context, indices: Sequence[str], sizes: Shape) -> str:
    """One index, in row-major order, of an index for each axis."""
    result = _counted(context, indices[0], sizes[0])
    for index, size in zip(indices[1:], sizes[1:], strict=True):
        scaled = context.add(Arithmetic("mul"), result, context.operand(size, INT64))
        result = context.add(Arithmetic("add"), scaled, _counted(context, index, size))
    return result


def _counted(context: Context, index: str, size: int) -> str:
    """The index counted from the front: below 0 it counts from the end."""
    below = context.add(Compare("lt"), index, context.operand(0, INT64))
    back = context.add(Arithmetic("mul"), context.cast(below, INT64), context.operand(size, INT64))
    return context.add(Arithmetic("add"), index, back)


def _gather(context: Context, args: dict[str, Any]) -> Imported:
    return gathered(context, args["self"], context.axis(args["self"], args["dim"]), args["index"])


def gathered(context: Context, x: str, axis: int, at: str) -> str:
    """y[i, j] = x[index[i, j], j] along an axis."""
    shape = context.shape(x)
    index_shape = context.shape(at)
    if not shape:
        return context.add(Reshape(()), x)
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    # The places along the other axes are known.
    rest = sum(
        (torch.arange(size) * step).reshape(-1, *[1] * (len(shape) - 1 - i))
        for i, (size, step) in enumerate(zip(index_shape, steps, strict=True))
        if i != axis
    ) + torch.zeros(index_shape, dtype=torch.int64)
    value = known(context, at)
    if value is not None:
        return at_places(context, x, value.long() * steps[axis] + rest)
    index = context.cast(at, INT64)
    scaled = context.add(Arithmetic("mul"), index, context.operand(steps[axis], INT64))
    places = context.add(Arithmetic("add"), scaled, context.builder.add_constant(f"{context.wish}_rest", rest, INT64))
    return context.add(Gather(0), context.add(Reshape((math.prod(shape),)), x), places)


def _take(context: Context, args: dict[str, Any]) -> Imported:
    flat = context.add(Reshape((math.prod(context.shape(args["self"])),)), args["self"])
    return _parts(context, flat, 0, args["index"])


def _take_along(context: Context, args: dict[str, Any]) -> Imported:
    """As gather, with shapes that broadcast along the other axes."""
    x, index, dim = args["self"], args["indices"], args["dim"]
    if dim is None:
        flat = context.add(Reshape((math.prod(context.shape(index)),)), index)
        return _take(context, {"self": x, "index": flat})
    axis = context.axis(x, dim)
    shapes = [list(context.shape(each)) for each in (x, index)]
    rest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    wide = []
    for each, shape in zip((x, index), shapes, strict=True):
        target = tuple(shape[i] if i == axis else size for i, size in enumerate(rest))
        wide.append(each if target == tuple(shape) else context.add(Expand(target), each))
    return gathered(context, wide[0], axis, wide[1])


# --- writing at places that are known


def written(context: Context, x: str, places: torch.Tensor, source: str | float) -> str:
    """x with the elements of `source`, broadcast to the shape of `places`, at these places."""
    format_ = context.format(x)
    shape = context.shape(x)
    size = math.prod(shape)
    source = context.cast(source, format_)
    count = math.prod(context.shape(source))
    numbers = torch.arange(count).reshape(context.shape(source)).expand(places.shape)
    chosen = torch.arange(size)
    chosen[places.reshape(-1)] = size + numbers.reshape(-1)
    parts = [context.add(Reshape((math.prod(context.shape(value)),)), value) for value in (x, source)]
    index = context.builder.add_constant(f"{context.wish}_places", chosen, INT64)
    return context.add(Reshape(shape), context.add(Gather(0), context.add(Concat(0), *parts), index))


def _numbered(shape: Shape) -> torch.Tensor:
    return torch.arange(math.prod(shape)).reshape(shape)


def _slice_scatter(context: Context, args: dict[str, Any]) -> Imported:
    shape, axis = context.shape(args["self"]), context.axis(args["self"], args["dim"])
    start, stop, step = slice(args["start"], args["end"], args["step"]).indices(shape[axis])
    if (start, stop, step) == (0, shape[axis], 1):
        return context.cast(args["src"], context.format(args["self"]))
    keys = (*[slice(None)] * axis, slice(start, stop, step))
    return written(context, args["self"], _numbered(shape)[keys], args["src"])


def _select_scatter(context: Context, args: dict[str, Any]) -> Imported:
    shape, axis = context.shape(args["self"]), context.axis(args["self"], args["dim"])
    return written(context, args["self"], _numbered(shape).select(axis, args["index"]), args["src"])


def _index_put(context: Context, args: dict[str, Any]) -> Imported:
    """x[i, j] = values, with known indices."""
    values = [None if index is None else _known_index(context, index) for index in args["indices"]]
    shape = context.shape(args["self"])
    places = _numbered(shape)[_keys(values)]
    if not args["accumulate"]:
        return written(context, args["self"], places, args["values"])
    flat = context.add(Reshape((math.prod(shape),)), args["self"])
    wide = context.add(Expand(tuple(places.shape)), args["values"])
    source = context.add(Reshape((places.numel(),)), wide)
    return context.add(Reshape(shape), _add_to(context, flat, source, 0, places.reshape(-1)))


def _known_index(context: Context, index: str) -> torch.Tensor:
    value = known(context, index)
    if value is None:
        raise UnsupportedModel(
            "writing at computed indices", layer=context.layer, fix="use indices that are known when lowering"
        )
    return value


def _scatter(source: str) -> Importer:
    """y[index[i, j], j] = source[i, j] along an axis, with known indices."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        shape, axis = context.shape(args["self"]), context.axis(args["self"], args["dim"])
        if known(context, args["index"]) is None:
            return _scattered(context, args["self"], axis, args["index"], args[source])
        index = _known_index(context, args["index"]).long()
        places = _numbered(shape).gather(axis, index) if shape else torch.zeros_like(index)
        value = args[source]
        if isinstance(value, str) and context.shape(value) != tuple(index.shape):
            numbers = _numbered(context.shape(value))[tuple(slice(0, size) for size in index.shape)]
            value = at_places(context, value, numbers)
        return written(context, args["self"], places, value)

    return importer


# Indices along the axis of a scatter, each of which is a pass over the result.
_MOST_COMPUTED = 8


def _scattered(context: Context, x: str, axis: int, index: str, source: str | float) -> str:
    """Writing at computed indices: for each of the few along the axis, wherever the place is the one that it names."""
    shape, index_shape = context.shape(x), context.shape(index)
    size = index_shape[axis]
    if size > _MOST_COMPUTED or any(index_shape[i] != shape[i] for i in range(len(shape)) if i != axis):
        raise UnsupportedModel(
            "writing at computed indices",
            expected=f"at most {_MOST_COMPUTED} along the axis, and all places along others",
            found=index_shape,
            layer=context.layer,
            fix="use indices that are known when lowering",
        )
    places = torch.arange(shape[axis]).reshape(-1, *[1] * (len(shape) - 1 - axis))
    numbers = context.builder.add_constant(f"{context.wish}_numbers", places, INT64)
    for number in range(size):
        named = context.add(Slice(axis, number, number + 1), context.cast(index, INT64))
        value = context.cast(source, context.format(x))
        if isinstance(source, str):
            value = context.add(Slice(axis, number, number + 1), value)
        x = context.add(Where(), context.add(Compare("eq"), numbers, named), value, x)
    return x


def _copy(context: Context, args: dict[str, Any]) -> Imported:
    """The source, broadcast to the shape of what it is copied into, in its format."""
    value, shape = context.cast(args["src"], context.format(args["self"])), context.shape(args["self"])
    return value if context.shape(value) == shape else context.add(Expand(shape), value)


def _one_hot(context: Context, args: dict[str, Any]) -> Imported:
    """Whether a class is the one that is named."""
    x, classes = args["self"], args["num_classes"]
    if classes < 0:
        raise UnsupportedModel("one_hot", expected="num_classes", found=classes, layer=context.layer, fix="give it")
    column = context.add(Reshape((*context.shape(x), 1)), context.cast(x, INT64))
    numbers = context.builder.add_constant(f"{context.wish}_classes", torch.arange(classes), INT64)
    return context.cast(context.add(Compare("eq"), column, numbers), INT64)


def added(context: Context, source: str, axis: int, places: torch.Tensor, size: int) -> str | None:
    """Zeros of `size` along an axis, with the parts of `source` added at known places; None where too many meet.

    Each place gathers the parts that belong there, and zeros where it has fewer than others.
    """
    order = places.argsort(stable=True)
    counts = torch.bincount(places, minlength=size)
    most = int(counts.max())
    if most * size > 16 * max(size, places.numel()):
        return None
    table = torch.full((size, most), places.numel())
    ends = counts.cumsum(0)
    rank = torch.arange(places.numel()) - (ends - counts)[places[order]]
    table[places[order], rank] = order
    shape = context.shape(source)
    zeros = torch.zeros((*shape[:axis], 1, *shape[axis + 1 :]))
    joined = context.add(Concat(axis), source, context.builder.add_constant(f"{context.wish}_zeros", zeros))
    index = context.builder.add_constant(f"{context.wish}_places", table, INT64)
    parts = context.add(Gather(axis), joined, index)
    return context.add(Reshape((*shape[:axis], size, *shape[axis + 1 :])), context.add(Reduce("sum", axis + 1), parts))


def _index_add(context: Context, args: dict[str, Any]) -> Imported:
    x, source, axis = args["self"], args["source"], context.axis(args["self"], args["dim"])
    return _add_to(context, x, source, axis, _known_index(context, args["index"]), args["alpha"])


def _add_to(context: Context, x: str, source: str, axis: int, places: torch.Tensor, alpha: float = 1) -> str:
    size = context.shape(x)[axis]
    total = added(context, source, axis, places.long(), size)
    if total is None:
        matrix = torch.zeros(places.numel(), size)
        matrix[torch.arange(places.numel()), places.long()] = 1.0
        total = along_axis(context, source, axis, matrix)
    if alpha != 1:
        total = context.add(Arithmetic("mul"), total, context.operand(float(alpha)))
    return context.add(Arithmetic("add"), x, total)


def _scatter_add(context: Context, args: dict[str, Any]) -> Imported:
    """x[index[i, j], j] += source[i, j] along an axis, with known indices: in row-major order of all elements."""
    x, shape, axis = args["self"], context.shape(args["self"]), context.axis(args["self"], args["dim"])
    index = _known_index(context, args["index"]).long()
    places = _numbered(shape).gather(axis, index)
    numbers = _numbered(context.shape(args["src"]))[tuple(slice(0, size) for size in index.shape)]
    source = at_places(context, args["src"], numbers.reshape(-1))
    flat = context.add(Reshape((math.prod(shape),)), x)
    return context.add(Reshape(shape), _add_to(context, flat, source, 0, places.reshape(-1)))


def _index_copy(context: Context, args: dict[str, Any]) -> Imported:
    shape, axis = context.shape(args["self"]), context.axis(args["self"], args["dim"])
    places = _numbered(shape).index_select(axis, _known_index(context, args["index"]).long())
    return written(context, args["self"], places, args["source"] if "source" in args else args["value"])


_BAGS = {0: "sum", 1: "mean", 2: "max"}


def _embedding_bag(context: Context, args: dict[str, Any]) -> Imported:
    """The sum, mean or maximum of the rows of each bag; all have the same size, which is known."""
    offsets, count = known(context, args["offsets"]), math.prod(context.shape(args["indices"]))
    bags = 0 if offsets is None else offsets.numel() - bool(args.get("include_last_offset"))
    if not bags or count % bags or not torch.equal(offsets[:bags].long(), torch.arange(bags) * (count // bags)):  # type: ignore[index]
        raise UnsupportedModel("embedding_bag", expected="bags of one size, known when lowering", layer=context.layer)
    if args.get("per_sample_weights") is not None or args.get("padding_idx", -1) not in (-1, None):
        raise UnsupportedModel("embedding_bag with weights or padding", layer=context.layer, fix="use an embedding")
    rows = _parts(context, args["weight"], 0, args["indices"])
    apart = context.add(Reshape((bags, count // bags, context.shape(rows)[1])), rows)
    return reduce(context, _BAGS[args["mode"]], apart, 1, keepdim=False), "", "", ""


IMPORTERS: dict[str, Importer] = {
    "embedding.default": _embedding,
    "embedding_bag.padding_idx": _embedding_bag,
    "index_select.default": _index_select,
    "index.Tensor": _index,
    "gather.default": _gather,
    "slice_scatter.default": _slice_scatter,
    "select_scatter.default": _select_scatter,
    "index_put.default": _index_put,
    "scatter.src": _scatter("src"),
    "scatter.value": _scatter("value"),
    "take.default": _take,
    "take_along_dim.default": _take_along,
    "index_add.default": _index_add,
    "scatter_add.default": _scatter_add,
    "index_copy.default": _index_copy,
    "index_fill.int_Scalar": _index_copy,
    "copy.default": _copy,
    "one_hot.default": _one_hot,
}
