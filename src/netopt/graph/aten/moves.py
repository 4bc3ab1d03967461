"""What repeats, turns and overlaps elements, without computing anything."""

from __future__ import annotations

import math
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer, pair
from netopt.graph.aten.indexing import added, at_places
from netopt.graph.aten.shapes import part
from netopt.numerics import INT64, Shape
from netopt.ops import Concat, Expand, Gather, Pad, Permute, Reshape


def _roll(context: Context, args: dict[str, Any]) -> Imported:
    """Along each axis the last elements come first; without axes, as if all were one."""
    x: str = args["self"]
    shape, shifts, axes = context.shape(x), args["shifts"], args["dims"]
    if not axes:
        x = context.add(Reshape((math.prod(shape),)), x)
    for shift, axis in zip(shifts, axes or [0], strict=True):
        axis = context.axis(x, axis)
        size = context.shape(x)[axis]
        cut = -shift % size
        if cut:
            x = context.add(Concat(axis), part(context, x, axis, cut, size), part(context, x, axis, 0, cut))
    return context.add(Reshape(shape), x)


def flip(context: Context, x: str, axis: int) -> str:
    backwards = torch.arange(context.shape(x)[axis] - 1, -1, -1)
    return context.add(Gather(axis), x, context.builder.add_constant(f"{context.wish}_order", backwards, INT64))


def _flip(context: Context, args: dict[str, Any]) -> Imported:
    x: str = args["self"]
    for axis in args["dims"]:
        x = flip(context, x, context.axis(x, axis))
    return x


def _repeat(context: Context, args: dict[str, Any]) -> Imported:
    """The whole, so many times along each axis; there may be more axes than x has."""
    repeats = args["repeats"] if "repeats" in args else args["dims"]
    shape = context.shape(args["self"])
    repeats = [1] * (len(shape) - len(repeats)) + list(repeats)
    shape = (1,) * (len(repeats) - len(shape)) + shape
    return _repeated(context, args["self"], [(times, size) for times, size in zip(repeats, shape, strict=True)], 0)


def _repeated(context: Context, x: str, sizes: list[tuple[int, int]], repeated: int) -> str:
    """Of each pair of axes, with sizes before it is merged to one, the first or second is new."""
    before = tuple(1 if which == repeated else pair_[which] for pair_ in sizes for which in (0, 1))
    after = tuple(size for pair_ in sizes for size in pair_)
    wide = context.add(Expand(after), context.add(Reshape(before), x))
    return context.add(Reshape(tuple(a * b for a, b in sizes)), wide)


def _repeat_interleave(context: Context, args: dict[str, Any]) -> Imported:
    """Each element so many times in a row, along an axis, or without one of all elements in a row."""
    x, axis = args["self"], args["dim"]
    if axis is None:
        x, axis = context.add(Reshape((math.prod(context.shape(x)),)), x), 0
    axis = context.axis(x, axis)
    sizes = [(size, args["repeats"] if i == axis else 1) for i, size in enumerate(context.shape(x))]
    return _repeated(context, x, sizes, 1)


def _diagonal(context: Context, args: dict[str, Any]) -> Imported:
    numbers = torch.arange(math.prod(context.shape(args["self"]))).reshape(context.shape(args["self"]))
    return at_places(context, args["self"], numbers.diagonal(args["offset"], args["dim1"], args["dim2"]))


def _unfold(context: Context, args: dict[str, Any]) -> Imported:
    """Windows along an axis, which may overlap; what is in them is a new last axis."""
    x, axis = args["self"], context.axis(args["self"], args["dimension"])
    size, step = args["size"], args["step"]
    starts = torch.arange(0, context.shape(x)[axis] - size + 1, step)
    places = starts[:, None] + torch.arange(size)
    windows = context.add(Gather(axis), x, context.builder.add_constant(f"{context.wish}_windows", places, INT64))
    axes = list(range(len(context.shape(windows))))
    axes.append(axes.pop(axis + 1))
    return context.add(Permute(tuple(axes)), windows)


def _im2col(context: Context, args: dict[str, Any]) -> Imported:
    """Each window of an image as a column: (batch, channels x window, windows)."""
    x: str = args["self"]
    kernel, stride, dilation, padding = (pair(args[k]) for k in ("kernel_size", "stride", "dilation", "padding"))
    if any(padding):
        x = context.add(Pad("constant", (0, 0, *padding), (0, 0, *padding), 0.0), x)
    batch, channels, height, width = context.shape(x)
    places = _windows((height, width), kernel, stride, dilation)
    flat = context.add(Reshape((batch, channels, height * width)), x)
    index = context.builder.add_constant(f"{context.wish}_windows", places, INT64)
    columns = context.add(Gather(2), flat, index)
    return context.add(Reshape((batch, channels * places.shape[0], places.shape[1])), columns)


def _windows(
    image: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> torch.Tensor:
    """For each place in the window, and each window, the pixel."""
    starts, within = [], []
    for n, k, s, d in zip(image, kernel, stride, dilation, strict=True):
        starts.append(torch.arange(0, n - d * (k - 1), s))
        within.append(torch.arange(k) * d)
    rows = within[0][:, None, None, None] + starts[0][:, None]
    columns = within[1][:, None, None] + starts[1]
    return (rows * image[1] + columns).reshape(kernel[0] * kernel[1], -1)


def _col2im(context: Context, args: dict[str, Any]) -> Imported:
    """The inverse of im2col, with the sum where windows overlap."""
    kernel, stride, dilation, padding = (pair(args[k]) for k in ("kernel_size", "stride", "dilation", "padding"))
    height, width = args["output_size"]
    batch, rows, _ = context.shape(args["self"])
    channels = rows // (kernel[0] * kernel[1])
    padded: Shape = (height + 2 * padding[0], width + 2 * padding[1])
    places = _windows((padded[0], padded[1]), kernel, stride, dilation)
    columns = context.add(Reshape((batch, channels, places.numel())), args["self"])
    image = added(context, columns, 2, places.reshape(-1), padded[0] * padded[1])
    if image is None:
        raise UnsupportedModel("fold", expected="windows that overlap little", found=kernel, layer=context.layer)
    image = context.add(Reshape((batch, channels, *padded)), image)
    for axis, (before, size) in enumerate(zip(padding, (height, width), strict=True), start=2):
        if before:
            image = part(context, image, axis, before, before + size)
    return image


IMPORTERS: dict[str, Importer] = {
    "roll.default": _roll,
    "flip.default": _flip,
    "fliplr.default": lambda context, args: flip(context, args["self"], 1),
    "flipud.default": lambda context, args: flip(context, args["self"], 0),
    "repeat.default": _repeat,
    "tile.default": _repeat,
    "repeat_interleave.self_int": _repeat_interleave,
    "diagonal.default": _diagonal,
    "unfold.default": _unfold,
    "im2col.default": _im2col,
    "col2im.default": _col2im,
}
