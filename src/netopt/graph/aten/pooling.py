"""Pooling."""

from __future__ import annotations

from typing import Any

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer, both_sides, pair
from netopt.ops import Pool2d, SpatialMean


def _pool2d(function: str) -> Importer:
    """A pooling whose stride defaults to its kernel."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x, kernel = context.shape(args["self"]), pair(args["kernel_size"])
        if len(x) != 4:
            raise UnsupportedModel("pooling", expected="(batch, channels, height, width)", found=x, layer=context.layer)
        if args.get("divisor_override") is not None:
            raise UnsupportedModel("pooling with divisor_override", layer=context.layer, fix="scale the result instead")
        stride, padding = pair(args["stride"] or kernel), pair(args["padding"])
        dilation = pair(args.get("dilation", (1, 1)))
        excess = [0, 0]
        if args["ceil_mode"]:
            for axis in (0, 1):
                padded = x[2 + axis] + 2 * padding[axis]
                span = (kernel[axis] - 1) * dilation[axis] + 1
                windows = -(-(padded - span) // stride[axis]) + 1
                # A last window that begins beyond the image and its left padding does not count.
                windows -= (windows - 1) * stride[axis] >= x[2 + axis] + padding[axis]
                excess[axis] = max(0, (windows - 1) * stride[axis] + span - padded)
        name = function
        if function == "average" and args["count_include_pad"]:
            name = "average_of_all"
        return context.add(
            Pool2d(name, kernel, stride, both_sides(padding), dilation, (excess[0], excess[1])), args["self"]
        )

    return importer


def _adaptive_average(context: Context, args: dict[str, Any]) -> Imported:
    shape, sizes = context.shape(args["self"]), pair(args["output_size"])
    if sizes == (1, 1):
        return context.add(SpatialMean(), args["self"])
    if shape[2] % sizes[0] or shape[3] % sizes[1]:
        raise UnsupportedModel(
            "adaptive average pooling",
            expected=f"an output size that divides {shape[2:]}",
            found=sizes,
            layer=context.layer,
            fix="choose another input or output size",
        )
    kernel = (shape[2] // sizes[0], shape[3] // sizes[1])
    return context.add(Pool2d("average", kernel, kernel), args["self"])


IMPORTERS: dict[str, Importer] = {
    "max_pool2d.default": _pool2d("max"),
    "avg_pool2d.default": _pool2d("average"),
    "adaptive_avg_pool2d.default": _adaptive_average,
}
