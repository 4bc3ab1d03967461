"""Pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer, both_sides, pair
from netopt.graph.aten.images import as_image, as_sequence
from netopt.ops import AdaptivePool2d, Arithmetic, Pool2d, SpatialMean


def pool2d(function: str) -> Importer:
    """A pooling whose stride defaults to its kernel."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x, kernel = context.shape(args["self"]), pair(args["kernel_size"])
        if len(x) != 4:
            raise UnsupportedModel("pooling", expected="(batch, channels, height, width)", found=x, layer=context.layer)
        stride, padding = pair(args["stride"] or kernel), pair(args["padding"])
        dilation = pair(args.get("dilation", (1, 1)))
        excess = _excess(x[2:], kernel, stride, padding, dilation) if args["ceil_mode"] else (0, 0)
        name, divisor = function, args.get("divisor_override")
        if function == "average" and args["count_include_pad"]:
            name = "average_of_all"
        op = Pool2d(name if divisor is None else "sum", kernel, stride, both_sides(padding), dilation, excess)
        y = context.add(op, args["self"])
        return y if divisor is None else context.add(Arithmetic("div"), y, context.operand(divisor))

    return importer


def _excess(
    image: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int]:
    """Rows and columns beyond the padding that the windows reach into where their number is rounded up."""
    result = []
    for axis, size in enumerate(image):
        padded = size + 2 * padding[axis]
        span = (kernel[axis] - 1) * dilation[axis] + 1
        windows = -(-(padded - span) // stride[axis]) + 1
        # A last window that begins beyond the image and its left padding does not count.
        windows -= (windows - 1) * stride[axis] >= size + padding[axis]
        result.append(max(0, (windows - 1) * stride[axis] + span - padded))
    return result[0], result[1]


def adaptive(function: str) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        shape, sizes = context.shape(args["self"]), pair(args["output_size"])
        if len(shape) != 4:
            raise UnsupportedModel(
                "adaptive pooling", expected="(batch, channels, height, width)", found=shape, layer=context.layer
            )
        if sizes == (1, 1) and function == "average":
            return context.add(SpatialMean(), args["self"])
        if min(sizes) < 1 or shape[2] % sizes[0] or shape[3] % sizes[1]:
            return context.add(AdaptivePool2d(function, sizes), args["self"])
        kernel = (shape[2] // sizes[0], shape[3] // sizes[1])
        return context.add(Pool2d(function, kernel, kernel), args["self"])

    return importer


def _with_indices(importer: Importer) -> Importer:
    """An ATen op that also returns the places of the maxima, which are not lowered."""

    def with_indices(context: Context, args: dict[str, Any]) -> Imported:
        y = importer(context, args)
        assert isinstance(y, str)
        return (y, "")

    return with_indices


# What the arguments of a one-dimensional pooling are along the height, which is 1.
_ALONG_HEIGHT = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1, "output_size": 1}


def _pool1d(pool: Importer) -> Importer:
    """A pooling of sequences as one of images of height 1."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x = context.shape(args["self"])
        if len(x) != 3:
            raise UnsupportedModel("pooling", expected="(batch, channels, length)", found=x, layer=context.layer)
        pairs = {name: [first, *args[name]] for name, first in _ALONG_HEIGHT.items() if args.get(name)}
        y = pool(context, {**args, **pairs, "self": as_image(context, args["self"])})
        assert isinstance(y, str)
        return as_sequence(context, y)

    return importer


IMPORTERS: dict[str, Importer] = {
    "max_pool2d.default": pool2d("max"),
    "max_pool2d_with_indices.default": _with_indices(pool2d("max")),
    "max_pool1d.default": _pool1d(pool2d("max")),
    "avg_pool2d.default": pool2d("average"),
    "avg_pool1d.default": _pool1d(pool2d("average")),
    "adaptive_avg_pool2d.default": adaptive("average"),
    "adaptive_avg_pool1d.default": _pool1d(adaptive("average")),
    "adaptive_max_pool2d.default": _with_indices(adaptive("max")),
    "adaptive_max_pool1d.default": _with_indices(_pool1d(adaptive("max"))),
}
