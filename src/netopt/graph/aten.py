"""How each ATen op that torch.export writes becomes ops of the graph: one row of `IMPORTERS` per ATen op.

An importer gets the context (builder, layer), and the ATen call's arguments by the names of its schema with defaults
filled in, tensors as names of graph values. It returns the name of the value that holds the result, or a tuple of
names where the ATen op has several results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.graph import GraphBuilder
from netopt.numerics import Shape
from netopt.ops import (
    Arithmetic,
    BatchNorm,
    Concat,
    Conv2d,
    Dense,
    LayerNorm,
    Op,
    Permute,
    Pointwise,
    Pool2d,
    Reshape,
    Slice,
    Softmax,
    SpatialMean,
)

Imported = str | tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """Where an importer puts its nodes: the builder, the name wished for the result, the layer's qualified name."""

    builder: GraphBuilder
    wish: str
    layer: str

    def shape(self, value: str) -> Shape:
        return self.builder.types[value].shape

    def axis(self, value: str, axis: int) -> int:
        """`axis` counted from the front."""
        rank = len(self.shape(value))
        return axis + rank if axis < 0 else axis

    def add(self, op: Op, *inputs: str) -> str:
        return self.builder.add_node(op, inputs, self.wish, self.layer)

    def operand(self, value: str | float) -> str:
        """A value as it is; a Python number as a constant of no axes."""
        if isinstance(value, str):
            return value
        return self.builder.add_constant(f"{self.wish}_number", torch.tensor(float(value), dtype=torch.float32))

    def filled(self, value: str | None, shape: Shape, fill: float, role: str) -> str:
        """`value`, or where that is absent a constant full of `fill`."""
        if value is not None:
            return value
        return self.builder.add_constant(f"{self.wish}_{role}", torch.full(shape, fill, dtype=torch.float32))


Importer = Callable[[Context, dict[str, Any]], Imported]


def _pointwise(function: str, *arguments: str) -> Importer:
    """An activation whose parameters are the ATen arguments of these names."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        parameters = tuple(float(args[name]) for name in arguments)
        return context.add(Pointwise(function, parameters), args["self"])

    return importer


def _fixed_pointwise(function: str, *parameters: float) -> Importer:
    """An activation with parameters that its name implies."""
    return lambda context, args: context.add(Pointwise(function, parameters), args["self"])


def _gelu(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Pointwise("gelu" if args["approximate"] == "none" else "gelu_tanh"), args["self"])


def _arithmetic(function: str, *, swapped: bool = False) -> Importer:
    """x op (alpha * y), or with `swapped` (y op alpha * x)."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        first, second = args["self"], args["other"]
        if swapped:
            first, second = second, first
        alpha = args.get("alpha", 1)
        first, second = context.operand(first), context.operand(second)
        if alpha != 1:
            second = context.add(Arithmetic("mul"), second, context.operand(alpha))
        return context.add(Arithmetic(function), first, second)

    return importer


def _linear(context: Context, args: dict[str, Any]) -> Imported:
    bias = args["bias"]
    inputs = (args["input"], args["weight"], *([] if bias is None else [bias]))
    return context.add(Dense(has_bias=bias is not None), *inputs)


def _conv2d(context: Context, args: dict[str, Any]) -> Imported:
    weight = context.shape(args["weight"])
    stride, dilation = _pair(args["stride"]), _pair(args["dilation"])
    padding = args["padding"]
    if padding == "same":
        # As PyTorch: what does not divide evenly goes below and to the right.
        total = [d * (k - 1) for d, k in zip(dilation, weight[2:], strict=True)]
        sides = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    elif padding == "valid":
        sides = (0, 0, 0, 0)
    else:
        sides = _sides(padding)
    op = Conv2d(stride, sides, dilation, args["groups"], has_bias=args["bias"] is not None)
    return context.add(op, args["input"], args["weight"], *([] if args["bias"] is None else [args["bias"]]))


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


def _pair(value: Sequence[int]) -> tuple[int, int]:
    return (value[0], value[-1])


def _sides(padding: Sequence[int]) -> tuple[int, int, int, int]:
    return (padding[0], padding[0], padding[-1], padding[-1])


def _pool2d(function: str) -> Importer:
    """A pooling whose stride defaults to its kernel."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        x, kernel = context.shape(args["self"]), _pair(args["kernel_size"])
        if len(x) != 4:
            raise UnsupportedModel("pooling", expected="(batch, channels, height, width)", found=x, layer=context.layer)
        if args.get("divisor_override") is not None:
            raise UnsupportedModel("pooling with divisor_override", layer=context.layer, fix="scale the result instead")
        stride, padding = _pair(args["stride"] or kernel), _pair(args["padding"])
        dilation = _pair(args.get("dilation", (1, 1)))
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
            Pool2d(name, kernel, stride, _sides(padding), dilation, (excess[0], excess[1])), args["self"]
        )

    return importer


def _adaptive_average(context: Context, args: dict[str, Any]) -> Imported:
    shape, sizes = context.shape(args["self"]), _pair(args["output_size"])
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


def _mean(context: Context, args: dict[str, Any]) -> Imported:
    shape = context.shape(args["self"])
    axes = sorted(context.axis(args["self"], axis) for axis in args["dim"] or ())
    if len(shape) != 4 or axes != [2, 3] or args.get("dtype") not in (None, torch.float32):
        raise UnsupportedModel(
            "mean",
            expected="over the last two of four axes",
            found=f"over {args['dim']} of {shape}",
            layer=context.layer,
        )
    y = context.add(SpatialMean(), args["self"])
    return y if args["keepdim"] else context.add(Reshape(shape[:2]), y)


def _clamp(context: Context, args: dict[str, Any]) -> Imported:
    if args["min"] is None or args["max"] is None:
        raise UnsupportedModel("clamp", expected="a minimum and a maximum", found="one of them", layer=context.layer)
    return context.add(Pointwise("hardtanh", (float(args["min"]), float(args["max"]))), args["self"])


def _softmax(log: bool) -> Importer:
    def importer(context: Context, args: dict[str, Any]) -> Imported:
        if args.get("dtype") not in (None, torch.float32):
            raise UnsupportedModel("softmax", expected="dtype float32", found=args["dtype"], layer=context.layer)
        return context.add(Softmax(context.axis(args["self"], args["dim"]), log), args["self"])

    return importer


def _layer_norm(context: Context, args: dict[str, Any]) -> Imported:
    shape = tuple(args["normalized_shape"])
    weight = context.filled(args["weight"], shape, 1.0, "weight")
    bias = context.filled(args["bias"], shape, 0.0, "bias")
    return context.add(LayerNorm(len(shape), args["eps"]), args["input"], weight, bias)


def _batch_norm(context: Context, args: dict[str, Any]) -> Imported:
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
    return _batch_norm(context, args)[0]


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
        return _same(context, args)  # PyTorch transposes a number into itself
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


def _part(context: Context, value: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    return context.add(Slice(axis, start, stop, step), value)


def _slice(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    size = context.shape(args["self"])[axis]
    start, stop, step = slice(args["start"], args["end"], args["step"]).indices(size)
    return _part(context, args["self"], axis, start, stop, step)


def _select(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    shape = context.shape(args["self"])
    index = args["index"] % shape[axis]
    return context.add(Reshape(shape[:axis] + shape[axis + 1 :]), _part(context, args["self"], axis, index, index + 1))


def _split(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    size = context.shape(args["self"])[axis]
    lengths = args["split_size"] if "split_size" in args else args["split_sizes"]
    starts = range(0, size, lengths) if isinstance(lengths, int) else _running_sum(lengths)
    stops = [*list(starts)[1:], size]
    return tuple(_part(context, args["self"], axis, a, b) for a, b in zip(starts, stops, strict=True))


def _running_sum(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths))]


def _unbind(context: Context, args: dict[str, Any]) -> Imported:
    axis = context.axis(args["self"], args["dim"])
    shape = context.shape(args["self"])
    rest = Reshape(shape[:axis] + shape[axis + 1 :])
    return tuple(context.add(rest, _part(context, args["self"], axis, i, i + 1)) for i in range(shape[axis]))


def _same(context: Context, args: dict[str, Any]) -> str:
    value: str = args["self"] if "self" in args else args["input"]
    return value


def _dropout(context: Context, args: dict[str, Any]) -> str:
    if args["train"] and args["p"] > 0:
        raise UnsupportedModel(
            "dropout that is active in eval mode",
            layer=context.layer,
            fix="use torch.nn.Dropout, or F.dropout with training=self.training",
        )
    return _same(context, args)


def _native_dropout(context: Context, args: dict[str, Any]) -> Imported:
    return (_dropout(context, args), "")


def _convert(context: Context, args: dict[str, Any]) -> Imported:
    if args.get("dtype") not in (None, torch.float32):
        raise UnsupportedModel("conversion", expected="dtype float32", found=args["dtype"], layer=context.layer)
    return _same(context, args)


IMPORTERS: dict[str, Importer] = {
    "linear.default": _linear,
    "conv2d.default": _conv2d,
    "conv2d.padding": _conv2d,
    "conv1d.default": _conv1d,
    "conv1d.padding": _conv1d,
    # pooling
    "max_pool2d.default": _pool2d("max"),
    "avg_pool2d.default": _pool2d("average"),
    "adaptive_avg_pool2d.default": _adaptive_average,
    "mean.dim": _mean,
    # activations
    "relu.default": _pointwise("relu"),
    "relu6.default": _fixed_pointwise("hardtanh", 0.0, 6.0),
    "hardtanh.default": _pointwise("hardtanh", "min_val", "max_val"),
    "clamp.default": _clamp,
    "leaky_relu.default": _pointwise("leaky_relu", "negative_slope"),
    "elu.default": _pointwise("elu", "alpha", "scale", "input_scale"),
    "selu.default": _fixed_pointwise("elu", 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0),
    "celu.default": lambda context, args: context.add(
        Pointwise("elu", (float(args["alpha"]), 1.0, 1.0 / float(args["alpha"]))), args["self"]
    ),
    "gelu.default": _gelu,
    "silu.default": _pointwise("silu"),
    "sigmoid.default": _pointwise("sigmoid"),
    "tanh.default": _pointwise("tanh"),
    "hardswish.default": _pointwise("hardswish"),
    "hardsigmoid.default": _pointwise("hardsigmoid"),
    "softplus.default": _pointwise("softplus", "beta", "threshold"),
    # normalization
    "softmax.int": _softmax(log=False),
    "_softmax.default": _softmax(log=False),
    "log_softmax.int": _softmax(log=True),
    "_log_softmax.default": _softmax(log=True),
    "layer_norm.default": _layer_norm,
    "batch_norm.default": _batch_norm_alone,
    "_native_batch_norm_legit_no_training.default": _batch_norm,
    "_native_batch_norm_legit.default": _batch_norm,
    "_native_batch_norm_legit.no_stats": _batch_norm,
    # arithmetic
    "add.Tensor": _arithmetic("add"),
    "sub.Tensor": _arithmetic("sub"),
    "mul.Tensor": _arithmetic("mul"),
    "div.Tensor": _arithmetic("div"),
    "add.Scalar": _arithmetic("add"),
    "sub.Scalar": _arithmetic("sub"),
    "mul.Scalar": _arithmetic("mul"),
    "div.Scalar": _arithmetic("div"),
    "rsub.Scalar": _arithmetic("sub", swapped=True),
    "rsub.Tensor": _arithmetic("sub", swapped=True),
    # shape
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
    "cat.default": _concat,
    "stack.default": _stack,
    "slice.Tensor": _slice,
    "select.int": _select,
    "split.Tensor": _split,
    "split_with_sizes.default": _split,
    "unbind.int": _unbind,
    # nothing to do in eval mode
    "dropout.default": _dropout,
    "native_dropout.default": _native_dropout,
    "_assert_tensor_metadata.default": lambda context, args: args["a"],
    "clone.default": _same,
    "contiguous.default": _same,
    "detach.default": _same,
    "detach_.default": _same,
    "alias.default": _same,
    "lift_fresh_copy.default": _same,
    "_to_copy.default": _convert,
    "to.dtype": _convert,
}
