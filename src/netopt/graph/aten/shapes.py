"""Reshaping, permuting, joining and cutting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.identities import same
from netopt.numerics import Shape
from netopt.ops import Concat, Expand, Permute, Reshape, Slice


def _reshape(shape_of: Callable[[Shape, dict[str, Any]], Sequence[int]]) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        shape = tuple(shape_of(context.shape(args["self"]), args))
        if -1 in shape:
            known = -math.prod(shape)
            free = math.prod(context.shape(args["self"])) // known if known else 0
            shape = tuple(free if size == -1 else size for size in shape)
        return context.add(Reshape(shape), args["self"])

    return importer


def _flattened(shape: Shape, args: dict[str, Any]) -> Shape:
    if not shape:
        return (1,)
    first, last = args["start_dim"] % len(shape), args["end_dim"] % len(shape)
    return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])


def _unflattened(shape: Shape, args: dict[str, Any]) -> Shape:
    axis = args["dim"] % len(shape)
    return (*shape[:axis], *args["sizes"], *shape[axis + 1 :])


def _squeezed(shape: Shape, args: dict[str, Any]) -> Shape:
    axes = args.get("dim", range(len(shape)))
    axes = {axis % max(1, len(shape)) for axis in ([axes] if isinstance(axes, int) else axes)}
    return tuple(size for axis, size in enumerate(shape) if size != 1 or axis not in axes)


def _unsqueezed(shape: Shape, args: dict[str, Any]) -> Shape:
    axis = args["dim"] % (len(shape) + 1)
    return (*shape[:axis], 1, *shape[axis:])


def _permute(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Permute(tuple(context.axis(args["self"], axis) for axis in args["dims"])), args["self"])


def _transpose(context: Context, args: dict[str, Any]) -> Imported:
    axes = list(range(len(context.shape(args["self"]))))
    if not axes:
        return same(context, args)  # PyTorch transposes a number into itself
    first, second = (context.axis(args["self"], args[name]) for name in ("dim0", "dim1"))
    axes[first], axes[second] = axes[second], axes[first]
    return context.add(Permute(tuple(axes)), args["self"])


def _t(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Permute(tuple(reversed(range(len(context.shape(args["self"])))))), args["self"])


def _concat(context: Context, args: dict[str, Any]) -> Imported:
    tensors = args["tensors"]
    return context.add(Concat(context.axis(tensors[0], args["dim"])), *tensors)


def _stack(context: Context, args: dict[str, Any]) -> Imported:
    tensors = args["tensors"]
    shape = context.shape(tensors[0])
    axis = args["dim"] % (len(shape) + 1)
    parts = [context.add(Reshape((*shape[:axis], 1, *shape[axis:])), tensor) for tensor in tensors]
    return context.add(Concat(axis), *parts)


def part(context: Context, value: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    return context.add(Slice(axis, start, stop, step), value)


def _slice(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    size = context.shape(args["self"])[axis]
    start, stop, step = slice(args["start"], args["end"], args["step"]).indices(size)
    # A longer step than the axis reads one element, too, and is within what kernels compute with.
    return part(context, args["self"], axis, start, stop, min(step, max(1, size)))


def _select(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    shape = context.shape(args["self"])
    index = args["index"] % shape[axis]
    return context.add(Reshape(shape[:axis] + shape[axis + 1 :]), part(context, args["self"], axis, index, index + 1))


def _split(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    size = context.shape(args["self"])[axis]
    lengths = args["split_size"] if "split_size" in args else args["split_sizes"]
    starts = range(0, size, lengths) if isinstance(lengths, int) else _running_sum(lengths)
    stops = [*list(starts)[1:], size]
    return tuple(part(context, args["self"], axis, a, b) for a, b in zip(starts, stops, strict=True))


def _running_sum(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths))]


def _expand(context: Context, args: dict[str, Any]) -> Imported:
    shape, target = context.shape(args["self"]), args["size"]
    kept = (1,) * (len(target) - len(shape)) + shape
    return context.add(
        Expand(tuple(old if new == -1 else new for old, new in zip(kept, target, strict=True))), args["self"]
    )


def _unbind(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    shape = context.shape(args["self"])
    rest = Reshape(shape[:axis] + shape[axis + 1 :])
    return tuple(context.add(rest, part(context, args["self"], axis, i, i + 1)) for i in range(shape[axis]))


IMPORTERS: dict[str, Importer] = {
    "view.default": _reshape(lambda shape, args: args["size"]),
    "_unsafe_view.default": _reshape(lambda shape, args: args["size"]),
    "reshape.default": _reshape(lambda shape, args: args["shape"]),
    "flatten.using_ints": _reshape(_flattened),
    "unflatten.int": _reshape(_unflattened),
    "squeeze.default": _reshape(_squeezed),
    "squeeze.dim": _reshape(_squeezed),
    "squeeze.dims": _reshape(_squeezed),
    "unsqueeze.default": _reshape(_unsqueezed),
    "permute.default": _permute,
    "transpose.int": _transpose,
    "t.default": _t,
    "expand.default": _expand,
    "cat.default": _concat,
    "stack.default": _stack,
    "slice.Tensor": _slice,
    "select.int": _select,
    "split.Tensor": _split,
    "split_with_sizes.default": _split,
    "unbind.int": _unbind,
}
