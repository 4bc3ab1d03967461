"""Convolution, pooling and resizing of volumes (batch, channels, depth, height, width), by those of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.layers import convolution, transposed_convolution
from netopt.graph.aten.moves import flip
from netopt.graph.aten.pooling import adaptive, pool2d
from netopt.graph.aten.shapes import part
from netopt.ops import Concat, Pad, Permute, Reshape


def _three(value: Sequence[int]) -> tuple[int, int, int]:
    return (value[0], value[-1] if len(value) < 3 else value[1], value[-1])


def _windows_of_depth(
    context: Context, x: str, kernel: int, stride: int, padding: tuple[int, int], dilation: int
) -> str:
    """(batch, depths, channels x kernel, height, width): each depth of the output with the input's that it reads."""
    x = context.add(Permute((0, 2, 1, 3, 4)), x)
    if any(padding):
        x = context.add(Pad("constant", (0, padding[0], 0, 0, 0), (0, padding[1], 0, 0, 0), 0.0), x)
    batch, depth, channels, height, width = context.shape(x)
    count = (depth - dilation * (kernel - 1) - 1) // stride + 1
    if count < 1:
        raise UnsupportedModel(
            "kernel of a volume", expected=f"at most {depth} deep", found=kernel, layer=context.layer
        )
    starts = range(0, kernel * dilation, dilation)
    parts = [part(context, x, 1, at, at + (count - 1) * stride + 1, min(stride, depth)) for at in starts]
    parts = [context.add(Reshape((batch, count, channels, 1, height, width)), each) for each in parts]
    joined = parts[0] if kernel == 1 else context.add(Concat(3), *parts)
    return context.add(Reshape((batch, count, channels * kernel, height, width)), joined)


def _as_images(context: Context, x: str) -> tuple[str, int, int]:
    """(batch, depth, channels, height, width) as images, with batch and depth."""
    batch, depth, *image = context.shape(x)
    return context.add(Reshape((batch * depth, *image)), x), batch, depth


def _as_volume(context: Context, images: str, batch: int, depth: int) -> str:
    """The inverse, with channels before depth."""
    x = context.add(Reshape((batch, depth, *context.shape(images)[1:])), images)
    return context.add(Permute((0, 2, 1, 3, 4)), x)


def _conv3d(context: Context, args: dict[str, Any]) -> Imported:
    """A convolution of images whose channels are those of all depths that the kernel reads."""
    weight = context.shape(args["weight"])
    stride, dilation = _three(args["stride"]), _three(args["dilation"])
    if args["padding"] == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight[2:], strict=True)]
        sides = [(size // 2, size - size // 2) for size in total]
    else:
        sides = [(p, p) for p in (_three(args["padding"]) if args["padding"] != "valid" else (0, 0, 0))]
    x = _windows_of_depth(context, args["input"], weight[2], stride[0], sides[0], dilation[0])
    images, batch, depth = _as_images(context, x)
    kernel = context.add(Reshape((weight[0], weight[1] * weight[2], *weight[3:])), args["weight"])
    around = (*sides[1], *sides[2])
    y = convolution(context, images, kernel, args["bias"], stride[1:], around, dilation[1:], args["groups"])
    return _as_volume(context, y, batch, depth)


def _conv_transpose3d(context: Context, args: dict[str, Any]) -> Imported:
    """Along the depth a convolution of what has zeros between; along height and width transposed."""
    weight = context.shape(args["weight"])
    stride, dilation = _three(args["stride"]), _three(args["dilation"])
    padding, extra = _three(args["padding"]), _three(args["output_padding"])
    before = dilation[0] * (weight[2] - 1) - padding[0]
    if before < 0:
        raise UnsupportedModel(
            "padding of a transposed convolution", expected=f"below {weight[2]}", found=padding, layer=context.layer
        )
    x = _spread(context, args["input"], stride[0])
    x = _windows_of_depth(context, x, weight[2], 1, (before, before + extra[0]), dilation[0])
    images, batch, depth = _as_images(context, x)
    turned = context.add(Permute((0, 2, 1, 3, 4)), flip(context, args["weight"], 2))
    kernel = context.add(Reshape((weight[0] * weight[2], weight[1], *weight[3:])), turned)
    y = transposed_convolution(
        context, images, kernel, args["bias"], stride[1:], padding[1:], extra[1:], dilation[1:], args["groups"]
    )
    return _as_volume(context, y, batch, depth)


def _spread(context: Context, x: str, stride: int) -> str:
    """The volume with stride - 1 empty depths between its own."""
    if stride == 1:
        return x
    batch, channels, depth, height, width = context.shape(x)
    apart = context.add(Reshape((batch, channels, depth, 1, height, width)), x)
    zeros = (0, 0, 0, stride - 1, 0, 0)
    apart = context.add(Pad("constant", (0,) * 6, zeros, 0.0), apart)
    flat = context.add(Reshape((batch, channels, depth * stride, height, width)), apart)
    return part(context, flat, 2, 0, (depth - 1) * stride + 1)


def _separable(pool: Importer, names: Sequence[str]) -> Importer:
    """A pooling along height and width, then one along the depth: the mean and the largest are those of all."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x = context.shape(args["self"])
        if len(x) != 5:
            raise UnsupportedModel(
                "pooling", expected="(batch, channels, depth, height, width)", found=x, layer=context.layer
            )
        if args.get("divisor_override"):
            raise UnsupportedModel("pooling of volumes with divisor_override", layer=context.layer)
        given = {name: _three(args[name] or args["kernel_size"]) for name in names if args.get(name) is not None}
        batch, channels, depth, height, width = x
        images = context.add(Reshape((batch, channels * depth, height, width)), args["self"])
        y = pool(context, {**args, **{name: value[1:] for name, value in given.items()}, "self": images})
        assert isinstance(y, str)
        height, width = context.shape(y)[2:]
        lines = context.add(Reshape((batch, channels, depth, height * width)), y)
        alone = {"output_size": height * width, "padding": 0}
        along = {name: (value[0], alone.get(name, 1)) for name, value in given.items()}
        z = pool(context, {**args, **along, "self": lines})
        assert isinstance(z, str)
        return context.add(Reshape((batch, channels, context.shape(z)[2], height, width)), z)

    return importer


def _with_indices(importer: Importer) -> Importer:
    def with_indices(context: Context, args: dict[str, Any]) -> Imported:
        y = importer(context, args)
        assert isinstance(y, str)
        return (y, "")

    return with_indices


_WINDOW = ("kernel_size", "stride", "padding", "dilation")

IMPORTERS: dict[str, Importer] = {
    "conv3d.default": _conv3d,
    "conv3d.padding": _conv3d,
    "conv_transpose3d.input": _conv_transpose3d,
    "max_pool3d.default": _separable(pool2d("max"), _WINDOW),
    "avg_pool3d.default": _separable(pool2d("average"), _WINDOW),
    "adaptive_avg_pool3d.default": _separable(adaptive("average"), ("output_size",)),
    "adaptive_max_pool3d.default": _with_indices(_separable(adaptive("max"), ("output_size",))),
}
