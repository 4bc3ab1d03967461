"""Padding, resizing and shuffling of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.ops import ChannelShuffle, Pad, PixelShuffle, PixelUnshuffle, Reshape, Resize, Slice


def as_image(context: Context, value: str) -> str:
    """A sequence (batch, channels, length) as images of height 1."""
    batch, channels, length = context.shape(value)
    return context.add(Reshape((batch, channels, 1, length)), value)


def as_sequence(context: Context, image: str) -> str:
    """The inverse of `as_image`."""
    batch, channels, _, length = context.shape(image)
    return context.add(Reshape((batch, channels, length)), image)


def _pad(context: Context, args: dict[str, Any]) -> Imported:
    """Negative sizes cut; the others pad what is left."""
    value: str = args["self"]
    sizes = list(args["pad"])
    rank = len(context.shape(value))
    before, after = ([0] * (rank - len(sizes) // 2) + sizes[side::2][::-1] for side in (0, 1))
    for axis, (first, last) in enumerate(zip(before, after, strict=True)):
        if min(first, last) < 0:
            stop = context.shape(value)[axis] + min(last, 0)
            value = context.add(Slice(axis, max(-first, 0), stop), value)
    before, after = ([max(size, 0) for size in side] for side in (before, after))
    fill = 0.0 if args["value"] is None else float(args["value"])
    if not any((*before, *after)):
        return value
    if rank == 3 and not any((*before[:2], *after[:2])):
        # The convolution that follows reads an image of height 1: the two reshapes meet and go.
        image = as_image(context, value)
        op = Pad(args["mode"], (0, 0, 0, before[2]), (0, 0, 0, after[2]), fill)
        return as_sequence(context, context.add(op, image))
    return context.add(Pad(args["mode"], tuple(before), tuple(after), fill), value)


def _resize(function: str) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x = context.shape(args["input"])
        scales = args["scale_factors"] or [None] * (len(x) - 2)
        sizes = args["output_size"] or [int(n * scale) for n, scale in zip(x[2:], scales, strict=True)]
        corners = bool(args.get("align_corners"))
        if function == "bilinear" or (function == "nearest" and len(x) == 4):
            # Where the size stays PyTorch copies, whatever the factor.
            scales = [None if n == m else scale for n, m, scale in zip(x[2:], sizes, scales, strict=True)]
        steps = [_step(*axis, corners) for axis in zip(x[2:], sizes, scales, strict=True)]
        name = f"{function}_corners" if corners else function
        if len(x) == 4:
            return context.add(Resize(name, (sizes[0], sizes[1]), (steps[0], steps[1])), args["input"])
        op = Resize(name, (1, sizes[0]), (1.0, steps[0]))
        return as_sequence(context, context.add(op, as_image(context, args["input"])))

    return importer


def _step(inputs: int, outputs: int, scale: float | None, corners: bool) -> float:
    """Pixels of the input a pixel of the output, rounded as PyTorch rounds it."""
    if corners:
        return float(np.float32(inputs - 1) / np.float32(outputs - 1)) if outputs > 1 else 0.0
    if scale is not None:
        return float(np.float32(1.0 / scale))
    return float(np.float32(inputs) / np.float32(outputs))


def _channel_shuffle(context: Context, args: dict[str, Any]) -> Imported:
    shape = context.shape(args["self"])
    if len(shape) == 4:
        return context.add(ChannelShuffle(args["groups"]), args["self"])
    image = context.add(Reshape((*shape[:2], 1, math.prod(shape[2:]))), args["self"])
    return context.add(Reshape(shape), context.add(ChannelShuffle(args["groups"]), image))


def _pixel_shuffle(op: type[PixelShuffle | PixelUnshuffle], factor: str) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        shape: Sequence[int] = context.shape(args["self"])
        if len(shape) != 4:
            raise UnsupportedModel(
                op.name, expected="(batch, channels, height, width)", found=shape, layer=context.layer
            )
        return context.add(op(args[factor]), args["self"])

    return importer


IMPORTERS: dict[str, Importer] = {
    "pad.default": _pad,
    "upsample_nearest1d.vec": _resize("nearest"),
    "upsample_nearest2d.vec": _resize("nearest"),
    "_upsample_nearest_exact1d.vec": _resize("nearest_exact"),
    "_upsample_nearest_exact2d.vec": _resize("nearest_exact"),
    "upsample_linear1d.vec": _resize("bilinear"),
    "upsample_bilinear2d.vec": _resize("bilinear"),
    "channel_shuffle.default": _channel_shuffle,
    "pixel_shuffle.default": _pixel_shuffle(PixelShuffle, "upscale_factor"),
    "pixel_unshuffle.default": _pixel_shuffle(PixelUnshuffle, "downscale_factor"),
}
