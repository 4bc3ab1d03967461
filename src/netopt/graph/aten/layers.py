"""Layers with weights, and normalization."""

from __future__ import annotations

import math
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer, both_sides, pair
from netopt.graph.aten.images import as_image, as_sequence
from netopt.graph.aten.reductions import reduce
from netopt.ops import (
    Arithmetic,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    LayerNorm,
    Pointwise,
    Reshape,
    Softmax,
)
from netopt.ops.spatial import Sides


def _linear(context: Context, args: dict[str, Any]) -> Imported:
    bias = args["bias"]
    inputs = (args["input"], args["weight"], *([] if bias is None else [bias]))
    return context.add(Dense(has_bias=bias is not None), *inputs)


def _conv2d(context: Context, args: dict[str, Any]) -> Imported:
    weight = context.shape(args["weight"])
    stride, dilation = pair(args["stride"]), pair(args["dilation"])
    padding = args["padding"]
    if padding == "same":
        # As PyTorch: what does not divide evenly goes below and to the right.
        total = [d * (k - 1) for d, k in zip(dilation, weight[2:], strict=True)]
        sides = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    elif padding == "valid":
        sides = (0, 0, 0, 0)
    else:
        sides = both_sides(padding)
    return convolution(context, args["input"], args["weight"], args["bias"], stride, sides, dilation, args["groups"])


def convolution(
    context: Context,
    x: str,
    weight: str,
    bias: str | None,
    stride: tuple[int, int],
    sides: Sides,
    dilation: tuple[int, int],
    groups: int,
) -> str:
    """Of images."""
    op = Conv2d(stride, sides, dilation, groups, has_bias=bias is not None)
    return context.add(op, x, weight, *([] if bias is None else [bias]))


def _conv1d(context: Context, args: dict[str, Any]) -> Imported:
    """A convolution of images of height 1."""
    x, weight = context.shape(args["input"]), context.shape(args["weight"])
    image = context.add(Reshape((*x[:2], 1, x[2])), args["input"])
    kernel = context.add(Reshape((*weight[:2], 1, weight[2])), args["weight"])
    padding = args["padding"] if isinstance(args["padding"], str) else (0, *args["padding"])
    pairs = {"stride": (1, *args["stride"]), "dilation": (1, *args["dilation"]), "padding": padding}
    y = _conv2d(context, {**args, **pairs, "input": image, "weight": kernel})
    assert isinstance(y, str)
    batch, channels, _, length = context.shape(y)
    return context.add(Reshape((batch, channels, length)), y)


def _conv_transpose2d(context: Context, args: dict[str, Any]) -> Imported:
    if len(context.shape(args["input"])) != 4:
        raise UnsupportedModel(
            "transposed convolution",
            expected="(batch, channels, height, width)",
            found=context.shape(args["input"]),
            layer=context.layer,
        )
    stride, padding, extra, dilation = (pair(args[k]) for k in ("stride", "padding", "output_padding", "dilation"))
    x, weight, bias = (args[name] for name in ("input", "weight", "bias"))
    return transposed_convolution(context, x, weight, bias, stride, padding, extra, dilation, args["groups"])


def transposed_convolution(
    context: Context,
    x: str,
    weight: str,
    bias: str | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    extra: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> str:
    """Of images; `extra` rows and columns are added below and to the right."""
    op = ConvTranspose2d(stride, both_sides(padding), extra, dilation, groups, has_bias=bias is not None)
    return context.add(op, x, weight, *([] if bias is None else [bias]))


def _conv_transpose1d(context: Context, args: dict[str, Any]) -> Imported:
    """A transposed convolution of images of height 1."""
    along_height = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
    pairs = {name: (first, *args[name]) for name, first in along_height.items()}
    values = {name: as_image(context, args[name]) for name in ("input", "weight")}
    y = _conv_transpose2d(context, {**args, **pairs, **values})
    assert isinstance(y, str)
    return as_sequence(context, y)


def _layer_norm(context: Context, args: dict[str, Any]) -> Imported:
    shape = tuple(args["normalized_shape"])
    weight = context.filled(args["weight"], shape, 1.0, "weight")
    bias = context.filled(args["bias"], shape, 0.0, "bias")
    return context.add(LayerNorm(len(shape), args["eps"]), args["input"], weight, bias)


def _rms_norm(context: Context, args: dict[str, Any]) -> Imported:
    """x / sqrt(mean(x^2) + eps) * weight, over the last axes.

    Source: Zhang and Sennrich, 1910.07467.
    """
    x, axes = args["input"], list(range(-len(args["normalized_shape"]), 0))
    epsilon = torch.finfo(torch.float32).eps if args["eps"] is None else args["eps"]
    mean = reduce(context, "mean", context.add(Pointwise("square"), x), axes, keepdim=True)
    factor = context.add(Pointwise("rsqrt"), context.add(Arithmetic("add"), mean, context.operand(epsilon)))
    y = context.add(Arithmetic("mul"), x, factor)
    return y if args["weight"] is None else context.add(Arithmetic("mul"), y, args["weight"])


def group_norm(context: Context, args: dict[str, Any]) -> Imported:
    """Layer normalization of each group of channels, then a weight and a bias for each channel.

    Source: Wu and He, 1803.08494.
    """
    x, groups, shape = args["input"], args["num_groups"], context.shape(args["input"])
    size = (math.prod(shape[1:]) // groups,)
    y = context.add(Reshape((shape[0] * groups, *size)), x)
    weight, bias = context.filled(None, size, 1.0, "ones"), context.filled(None, size, 0.0, "zeros")
    y = context.add(Reshape(shape), context.add(LayerNorm(1, args["eps"]), y, weight, bias))
    for function, parameter in (("mul", args["weight"]), ("add", args["bias"])):
        if parameter is not None:
            along = context.add(Reshape((shape[1], *[1] * (len(shape) - 2))), parameter)
            y = context.add(Arithmetic(function), y, along)
    return y


def batch_norm(context: Context, args: dict[str, Any]) -> Imported:
    if args.get("training", False) or args.get("running_mean") is None:
        raise UnsupportedModel(
            "batch normalization with the statistics of the batch",
            layer=context.layer,
            fix="build the layer with track_running_stats=True",
        )
    channels = context.shape(args["running_mean"])
    weight = context.filled(args["weight"], channels, 1.0, "weight")
    bias = context.filled(args["bias"], channels, 0.0, "bias")
    statistics = (args["running_mean"], args["running_var"])
    result = context.add(BatchNorm(args["eps"]), args["input"], weight, bias, *statistics)
    # _native_batch_norm_legit_no_training also returns the statistics, which nothing reads in eval mode.
    return (result, *statistics)


def _batch_norm_alone(context: Context, args: dict[str, Any]) -> Imported:
    return batch_norm(context, args)[0]


def _softmax(log: bool) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        if args.get("dtype") not in (None, torch.float32):
            raise UnsupportedModel("softmax", expected="dtype float32", found=args["dtype"], layer=context.layer)
        return context.add(Softmax(context.axis(args["self"], args["dim"]), log), args["self"])

    return importer


IMPORTERS: dict[str, Importer] = {
    "linear.default": _linear,
    "conv2d.default": _conv2d,
    "conv2d.padding": _conv2d,
    "conv1d.default": _conv1d,
    "conv1d.padding": _conv1d,
    "conv_transpose2d.input": _conv_transpose2d,
    "conv_transpose1d.default": _conv_transpose1d,
    "softmax.int": _softmax(log=False),
    "_softmax.default": _softmax(log=False),
    "log_softmax.int": _softmax(log=True),
    "_log_softmax.default": _softmax(log=True),
    "layer_norm.default": _layer_norm,
    "rms_norm.default": _rms_norm,
    "group_norm.default": group_norm,
    "batch_norm.default": _batch_norm_alone,
    "_native_batch_norm_legit_no_training.default": batch_norm,
    "_native_batch_norm_legit.default": batch_norm,
    "_native_batch_norm_legit.no_stats": batch_norm,
}
