"""Each op's shape rule, cost and in-place promise, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt import InvalidArgument
from netopt.numerics import BFLOAT16, BOOL, FLOAT32, INT32, INT64, SIGN_BITS, SIGNS, Int32, NumberFormat
from netopt.ops import (
    OPS,
    AdaptivePool2d,
    ArgReduce,
    Arithmetic,
    BatchNorm,
    BinaryConv2d,
    BinaryDense,
    Cast,
    ChannelShuffle,
    Compare,
    Concat,
    Conv2d,
    Convert,
    ConvTranspose2d,
    Dense,
    Expand,
    Gather,
    LayerNorm,
    Layout,
    Matmul,
    Op,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Pointwise,
    Pool2d,
    Recurrent,
    Reduce,
    Relayout,
    Reshape,
    Resize,
    Sign,
    SignPool2d,
    Slice,
    Softmax,
    SpatialMean,
    TensorType,
    View,
    Where,
    Winograd2d,
)

RELU = Pointwise("relu")

# op, shapes of the inputs, multiply-adds, operands that it may overwrite
CASES: list[tuple[Op, list[tuple[int, ...]], int, tuple[int, ...]]] = [
    (Dense(), [(3, 5), (7, 5)], 105, ()),
    (Dense(True), [(5,), (7, 5), (7,)], 35, ()),
    (Dense(True, True, RELU), [(2, 3, 5), (7, 5), (7,), (2, 3, 7)], 210, (3,)),
    (Dense(False, True), [(3, 5), (5, 5), (3, 5)], 75, (2,)),
    (RELU, [(2, 3)], 0, (0,)),
    (Arithmetic("add"), [(2, 3), (2, 3)], 0, (0, 1)),
    (Arithmetic("div"), [(2, 1), (1, 3)], 0, ()),
    (Arithmetic("prelu"), [(2, 3, 4), (3, 1)], 0, (0,)),
    (Arithmetic("mul"), [(), (4, 3)], 0, (1,)),
    (Conv2d(), [(2, 3, 5, 6), (4, 3, 2, 3)], 2 * 4 * 4 * 4 * 18, ()),
    (Conv2d(groups=4, has_bias=True), [(2, 4, 3, 5), (4, 1, 1, 1), (4,)], 120, (0,)),
    (Conv2d((2, 2), groups=4), [(2, 4, 3, 5), (4, 1, 1, 1)], 48, ()),
    (Conv2d((2, 1), (1, 0, 2, 1), (1, 2), 3, True), [(1, 3, 5, 6), (6, 1, 2, 2), (6,)], 6 * 3 * 7 * 4, ()),
    (
        Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, True, True, RELU),
        [(1, 2, 3, 3), (2, 2, 3, 3), (2,), (1, 2, 3, 3)],
        324,
        (3,),
    ),
    # 2 x 3 tiles of 2 x 2 outputs, 16 products each for every pair of channels.
    (Winograd2d(2, (1, 1, 1, 1), True), [(2, 3, 4, 5), (7, 3, 4, 4), (7,)], 2 * 6 * 16 * 21, ()),
    (Winograd2d(4, has_residual=True), [(1, 3, 6, 6), (7, 3, 6, 6), (1, 7, 4, 4)], 36 * 21, (2,)),
    (ConvTranspose2d((2, 1), (1, 0, 0, 1), (1, 0), (1, 2), 2, True), [(1, 4, 3, 5), (4, 3, 2, 3), (6,)], 60 * 18, ()),
    (ConvTranspose2d(has_residual=True), [(1, 2, 3, 3), (2, 4, 1, 1), (1, 4, 3, 3)], 72, (2,)),
    (Pool2d("max", (2, 2), (2, 2)), [(2, 3, 5, 6)], 0, ()),
    (Pool2d("average", (3, 2), (2, 1), (1, 1, 0, 0), (1, 1), (1, 0)), [(2, 3, 5, 6)], 0, ()),
    (Pool2d("sum", (3, 2), (2, 1)), [(2, 3, 5, 6)], 0, ()),
    (AdaptivePool2d("max", (3, 4)), [(2, 3, 5, 6)], 0, ()),
    (AdaptivePool2d("average", (7, 1)), [(2, 3, 5, 6)], 0, ()),
    (ChannelShuffle(3), [(2, 6, 5, 6)], 0, ()),
    (PixelShuffle(2), [(2, 8, 5, 6)], 0, ()),
    (PixelUnshuffle(3), [(2, 2, 3, 6)], 0, ()),
    (Pad("constant", (1, 0, 2), (0, 3, 0), 1.5), [(2, 3, 4)], 0, ()),
    (Pad("reflect", (0, 1), (0, 2)), [(2, 3)], 0, ()),
    (Pad("circular", (3, 1), (0, 3)), [(3, 3)], 0, ()),
    (Resize("bilinear", (3, 8), (0.5, 2.0)), [(2, 3, 5, 6)], 0, ()),
    (Resize("nearest", (3, 8), (0.5, 2.0)), [(2, 3, 5, 6)], 0, ()),
    (SpatialMean(), [(2, 3, 5, 6)], 0, ()),
    (Reduce("mean", 1, 2), [(2, 3, 5, 6)], 0, ()),
    (Reduce("max", 0), [(4,)], 0, ()),
    (Relayout(), [(2, 3, 5, 6)], 0, ()),
    (Convert(), [(2, 3, 5, 6)], 0, ()),
    (Matmul(), [(3, 5), (5, 7)], 105, ()),
    (Matmul(0.5), [(2, 1, 3, 5), (4, 5, 7)], 8 * 105, ()),
    (Matmul(2.0, None, View((2, 5, 3), (30, 1, 10), 5), (1, 0, 2)), [(2, 4, 5), (2, 3, 10)], 2 * 60, ()),
    (Expand((4, 2, 3)), [(2, 1)], 0, ()),
    (Softmax(1), [(2, 3)], 0, ()),
    (Softmax(0, True), [(2, 3)], 0, ()),
    (LayerNorm(2, 1e-5), [(4, 2, 3), (2, 3), (2, 3)], 0, ()),
    (BatchNorm(1e-5), [(4, 2, 3), (2,), (2,), (2,), (2,)], 0, ()),
    (Reshape((6, 1)), [(2, 3)], 0, ()),
    (Permute((2, 0, 1)), [(2, 3, 4)], 0, ()),
    (Concat(1), [(2, 3), (2, 1), (2, 5)], 0, ()),
    (Slice(1, 1, 6, 2), [(2, 7)], 0, ()),
    (Sign(), [(2, 3)], 0, ()),
    (Sign(has_threshold=True), [(2, 3, 4), (3,), (3,)], 0, ()),
    (BinaryDense(), [(3, 5), (7, 5)], 105, ()),
    (BinaryDense(False, True, True, True, RELU), [(2, 3, 5), (7, 5), (7,), (7,), (2, 3, 7)], 210, (4,)),
    (BinaryDense(has_threshold=True), [(3, 5), (7, 5), (7,)], 105, ()),
    (BinaryConv2d(), [(2, 3, 5, 6), (4, 3, 2, 3)], 2 * 4 * 4 * 4 * 18, ()),
    (
        BinaryConv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, False, False, True, True, True, RELU),
        [(1, 2, 3, 3), (2, 2, 3, 3), (2,), (2,), (1, 2, 3, 3)],
        324,
        (4,),
    ),
    (
        BinaryConv2d((2, 1), (1, 0, 2, 1), groups=2, has_threshold=True),
        [(1, 64, 5, 6), (64, 32, 2, 2), (64,)],
        64 * 3 * 8 * 128,
        (),
    ),
    (SignPool2d((2, 3), (2, 1), (1, 0, 1, 2)), [(2, 3, 5, 6), (3,)], 0, ()),
    (Recurrent("lstm", True, 1), [(5, 2, 13), (12, 3), (2, 3), (2, 3)], 5 * 2 * 36, ()),
    (Recurrent("gru"), [(5, 2, 9), (9, 3), (2, 3), (3,)], 5 * 2 * 27, ()),
    (Recurrent("rnn_relu"), [(1, 2, 3), (3, 3), (2, 3)], 2 * 9, ()),
    (ArgReduce("argmax", 1), [(2, 3, 4)], 0, ()),
    (Cast("int64"), [(2, 3)], 0, ()),
    (Cast("float32"), [(2, 3)], 0, ()),
    (Compare("le"), [(2, 3), (3,)], 0, ()),
    (Gather(1), [(2, 3, 4), (5, 6)], 0, ()),
    (Where(), [(2, 1), (2, 3), (3,)], 0, (1,)),
]


def types_of(op: Op, shapes: list[tuple[int, ...]]) -> list[TensorType]:
    """float32, but for the weights of one bit, and signs and whole numbers before thresholds."""
    formats: list[NumberFormat] = [FLOAT32] * len(shapes)
    if isinstance(op, SignPool2d):
        formats[:2] = [SIGNS, SIGN_BITS][: len(shapes)]
    if isinstance(op, BinaryConv2d | BinaryDense) and len(shapes) > 1:
        formats[1] = SIGN_BITS
        if op.has_threshold:
            formats[0], formats[2:] = SIGNS, [INT32] * (len(shapes) - 2)
    if isinstance(op, Where):
        formats[0] = BOOL
    if isinstance(op, Gather):
        formats[1] = INT64
    return [TensorType(shape, format_) for shape, format_ in zip(shapes, formats, strict=True)]


def inputs_of(types: list[TensorType], dtype: torch.dtype) -> list[torch.Tensor]:
    """Numbers from 0.5 to 1.5, and whole ones made of them."""
    numbers = [torch.rand(type_.shape) + 0.5 for type_ in types]
    whole = (INT64, BOOL)
    return [
        x.to(type_.format.tensor_dtype if type_.format in whole else dtype)
        for x, type_ in zip(numbers, types, strict=True)
    ]


def test_every_op_has_a_case() -> None:
    assert {type(op) for op, *_ in CASES} == set(OPS.values())


@pytest.mark.parametrize(("op", "shapes", "multiply_adds", "in_place"), CASES, ids=[str(case[0]) for case in CASES])
def test_the_shape_rule_is_that_of_the_reference(
    op: Op, shapes: list[tuple[int, ...]], multiply_adds: int, in_place: tuple[int, ...]
) -> None:
    types = types_of(op, shapes)
    output = op.infer(types)
    for dtype in (torch.float32, torch.float64):
        result = op.reference(*inputs_of(types, dtype))
        given = output.format.tensor_dtype if output.format.is_whole else dtype
        assert (result.shape, result.dtype) == (output.shape, given)
    assert op.multiply_adds(types) == multiply_adds
    assert op.in_place_operands(types) == in_place


REFUSED: list[tuple[Op, list[tuple[int, ...]], str]] = [
    (Dense(), [(3, 5), (7, 4)], r"expected x \(..., in\) and weight \(out, in\)"),
    (Dense(), [(), (7, 4)], "dense"),
    (Dense(), [(3, 4)], "inputs of dense: expected 2, found 1"),
    (Dense(True), [(3, 4), (7, 4), (4,)], r"bias of dense: expected \(7,\), found \(4,\)"),
    (Dense(False, True), [(3, 4), (7, 4), (7,)], r"residual of dense: expected \(3, 7\)"),
    (RELU, [(3,), (3,)], "inputs of relu: expected 1, found 2"),
    (Arithmetic("sub"), [(3,), (4,)], "shapes of sub: expected shapes that broadcast"),
    (Conv2d(), [(3, 5, 6), (4, 3, 2, 3)], r"input of conv2d: expected \(batch, channels, height, width\)"),
    (Conv2d(), [(1, 3, 5, 6), (4, 3, 2)], "weight of conv2d"),
    (Conv2d(), [(1, 3, 5, 6), (4, 2, 2, 2)], "channels of conv2d: expected 2 x 1 groups in"),
    (Conv2d(groups=3), [(1, 3, 5, 6), (4, 1, 2, 2)], "channels of conv2d"),
    (Conv2d(), [(1, 3, 2, 6), (4, 3, 3, 3)], "input of conv2d: expected at least 3 along axis 2, found 2"),
    (Conv2d(has_bias=True), [(1, 3, 5, 6), (4, 3, 2, 2), (3,)], "bias of conv2d"),
    (Conv2d(has_residual=True), [(1, 3, 5, 6), (4, 3, 2, 2), (1, 4, 5, 6)], "residual of conv2d"),
    (ConvTranspose2d(), [(1, 3, 5, 6), (4, 3, 2, 2)], "conv_transpose2d: expected x"),
    (ConvTranspose2d((1, 1), (3, 3, 0, 0)), [(1, 4, 5, 6), (4, 3, 2, 2)], "padding of conv_transpose2d"),
    (ConvTranspose2d(has_bias=True), [(1, 4, 5, 6), (4, 3, 2, 2), (4,)], r"bias of conv_transpose2d: expected \(3,\)"),
    (ConvTranspose2d(has_residual=True), [(1, 4, 5, 6), (4, 3, 2, 2), (4,)], "residual of conv_transpose2d"),
    (Pool2d("max", (2, 2), (2, 2)), [(3, 5, 6)], "input of max_pool2d"),
    (
        Pool2d("average", (2, 9), (2, 2)),
        [(1, 3, 5, 6)],
        "avg_pool2d: expected at least 9 along axis 3, found 6",
    ),
    (SpatialMean(), [(3, 5, 6)], "spatial_mean"),
    (AdaptivePool2d("max", (2, 2)), [(3, 5, 6)], "input of adaptive_max_pool2d"),
    (ChannelShuffle(4), [(1, 6, 5, 6)], "channel_shuffle: expected .* with 4 equal groups"),
    (PixelShuffle(2), [(1, 6, 5, 6)], r"pixel_shuffle: expected \(batch, a multiple of 4"),
    (PixelUnshuffle(2), [(1, 6, 5, 6)], r"pixel_unshuffle: expected \(batch, channels, multiples of 2\)"),
    (Pad("constant", (1,), (1,)), [(3, 4)], "axes of pad: expected 1"),
    (Pad("reflect", (0, 0), (0, 4)), [(3, 4)], "sizes of reflect_pad: expected at most 3 along axis 1"),
    (Pad("circular", (5, 0), (0, 0)), [(4, 4)], "sizes of circular_pad: expected at most 4 along axis 0"),
    (Resize("nearest", (2, 2), (1.0, 1.0)), [(3, 4)], "input of resize"),
    (Matmul(), [(3, 5), (4, 7)], r"matmul: expected x \(..., m, k\) and y \(..., k, n\)"),
    (Matmul(), [(5,), (5, 7)], "matmul"),
    (Matmul(), [(2, 3, 5), (3, 5, 7)], "matmul: expected leading axes that broadcast"),
    (Matmul(axes=(1, 0)), [(2, 3, 5), (5, 7)], "axes of matmul: expected a permutation of 3"),
    (Matmul(1.0, View((3, 5), (5, 1), 1)), [(3, 5), (5, 7)], "view: expected within 15 elements"),
    (Expand((2, 3)), [(2, 2)], r"expand: expected a shape that \(2, 2\) broadcasts to"),
    (Expand((3,)), [(2, 3)], "expand"),
    (Reduce("sum", 2), [(3, 4)], "axis of sum: expected 0 to 1, found 2"),
    (Reduce("sum", 1, 2), [(3, 4)], "axes of sum: expected 1 to 1, found 2"),
    (Reduce("sum", 0, 0), [(3, 4)], "axes of sum"),
    (Softmax(2), [(3, 4)], "axis of softmax: expected 0 to 1, found 2"),
    (Softmax(-1), [(3, 4)], "axis of softmax"),
    (LayerNorm(3, 1e-5), [(3, 4), (4,), (4,)], "axes of layer_norm: expected 1 to 2, found 3"),
    (LayerNorm(1, 1e-5), [(3, 4), (3,), (4,)], "weight of layer_norm"),
    (BatchNorm(1e-5), [(3,), (3,), (3,), (3,), (3,)], "batch_norm"),
    (BatchNorm(1e-5), [(3, 2), (2,), (2,), (3,), (2,)], "batch_norm"),
    (Reshape((4,)), [(3,)], "reshape: expected 3 elements"),
    (Reshape((-1, -3)), [(3,)], "reshape"),
    (Permute((0, 0)), [(3, 4)], "permutation of 2 axes"),
    (Permute((1, 0)), [(3,)], "permutation of 1 axes"),
    (Concat(0), [(3, 4), (3, 5)], "differ along axis 0 alone"),
    (Concat(0), [(3, 4), (3,)], "differ along axis 0 alone"),
    (Concat(0), [], "inputs of concat"),
    (Slice(0, 2, 2), [(3,)], "slice"),
    (Slice(0, 0, 4), [(3,)], "slice"),
    (Slice(0, 0, 3, 0), [(3,)], "step >= 1"),
    (Sign(), [(3,), (3,)], "inputs of sign: expected 1, found 2"),
    (Sign(True), [(2, 3), (2,), (2,)], r"sign: expected thresholds and directions \(channels,\)"),
    (Sign(True), [(), (1,), (1,)], "sign"),
    (BinaryDense(), [(3, 5), (7, 4)], r"binary_dense: expected x \(..., in\) and weight \(out, in\)"),
    (BinaryDense(), [(3, 5)], "inputs of binary_dense: expected 2, found 1"),
    (BinaryDense(has_scale=True), [(3, 4), (7, 4), (4,)], r"scale or threshold of binary_dense: expected \(7,\)"),
    (BinaryDense(has_threshold=True), [(3, 4), (7, 4), (1,)], "scale or threshold of binary_dense"),
    (BinaryDense(False, True, True), [(3, 4), (7, 4), (7,), (4,)], r"bias of binary_dense: expected \(7,\)"),
    (BinaryDense(has_residual=True), [(3, 4), (7, 4), (7,)], r"residual of binary_dense: expected \(3, 7\)"),
    (BinaryConv2d(), [(3, 5, 6), (4, 3, 2, 3)], r"input of binary_conv2d: expected \(batch"),
    (BinaryConv2d(), [(1, 3, 5, 6), (4, 3, 2)], "weight of binary_conv2d"),
    (BinaryConv2d(), [(1, 3, 5, 6), (4, 2, 2, 2)], "channels of binary_conv2d: expected 2 x 1 groups in"),
    (BinaryConv2d(), [(1, 3, 2, 6), (4, 3, 3, 3)], "input of binary_conv2d: expected at least 3 along axis 2"),
    (BinaryConv2d(has_threshold=True), [(1, 3, 5, 6), (4, 3, 2, 2), (3,)], "scale or threshold of binary_conv2d"),
    (BinaryConv2d(has_residual=True), [(1, 3, 5, 6), (4, 3, 2, 2), (1, 4, 5, 6)], "residual of binary_conv2d"),
]


@pytest.mark.parametrize(("op", "shapes", "message"), REFUSED)
def test_what_does_not_fit_is_refused(op: Op, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        op.infer(types_of(op, shapes))


BITS = [(3, 32), (7, 32), (7,)]


@pytest.mark.parametrize(
    ("op", "formats"),
    [
        (BinaryDense(), (FLOAT32, FLOAT32)),
        (BinaryDense(), (INT32, SIGN_BITS)),
        (BinaryDense(has_scale=True), (SIGNS, SIGN_BITS, INT32)),
        (BinaryDense(has_bias=True), (FLOAT32, SIGN_BITS, SIGNS)),
        (BinaryDense(has_threshold=True), (SIGNS, SIGN_BITS, FLOAT32)),
        (BinaryDense(has_threshold=True), (FLOAT32, SIGN_BITS, INT32)),
    ],
    ids=str,
)
def test_formats_that_a_binary_layer_does_not_read(op: Op, formats: tuple[NumberFormat, ...]) -> None:
    types = [TensorType(shape, format_) for shape, format_ in zip(BITS, formats, strict=False)]
    with pytest.raises(InvalidArgument, match=r"input formats of binary_dense.*: expected signs, or floating x"):
        op.infer(types)


@pytest.mark.parametrize("kind", sorted(set(OPS) - {"binary_conv2d", "binary_dense", "sign_pool2d"}))
def test_other_ops_read_no_signs(kind: str) -> None:
    for op, shapes in [(op, shapes) for op, shapes, *_ in CASES if op.name == kind]:
        with pytest.raises(InvalidArgument, match="input format of"):
            op.infer([TensorType(shape, SIGNS) for shape in shapes])


@pytest.mark.parametrize("formats", [(SIGNS, SIGN_BITS), (BFLOAT16, SIGN_BITS, BFLOAT16), (FLOAT32, SIGN_BITS)])
def test_formats_that_a_binary_layer_reads(formats: tuple[NumberFormat, ...]) -> None:
    types = [TensorType(shape, format_) for shape, format_ in zip(BITS, formats, strict=False)]
    assert BinaryDense(has_scale=len(formats) > 2).infer(types) == TensorType((3, 7))


@pytest.mark.parametrize("other", ["has_scale", "has_bias", "has_residual"])
@pytest.mark.parametrize("kind", [BinaryConv2d, BinaryDense])
def test_a_threshold_stands_alone(kind: Any, other: str) -> None:
    with pytest.raises(InvalidArgument, match=r"epilogue of binary_\w+: expected a threshold alone"):
        kind(has_threshold=True, **{other: True})
    with pytest.raises(InvalidArgument, match="a threshold alone"):
        kind(has_threshold=True, activation=RELU)


def test_padding_by_one_is_of_signs() -> None:
    op = BinaryConv2d(padding=(0, 1, 0, 0), pad_one=True)
    shapes = ((1, 3, 5, 6), (4, 3, 2, 2))
    assert op.infer([TensorType(shapes[0], SIGNS), TensorType(shapes[1], SIGN_BITS)]).shape == (1, 4, 5, 5)
    with pytest.raises(InvalidArgument, match=r"input of binary_conv2d padded with \+1: expected signs, found float32"):
        op.infer([TensorType(shapes[0]), TensorType(shapes[1], SIGN_BITS)])


@pytest.mark.parametrize(("channels", "fits"), [(64, True), (128, True), (40, False), (6, False)])
def test_groups_of_signs_have_whole_words(channels: int, fits: bool) -> None:
    """Those of another group would be in a word with them."""
    types = [TensorType((1, channels, 5, 6), SIGNS), TensorType((4, channels // 2, 2, 2), SIGN_BITS)]
    op = BinaryConv2d(groups=2)
    if fits:
        assert op.infer(types).shape == (1, 4, 4, 5)
    else:
        message = rf"channels of binary_conv2d in 2 groups: expected whole words of signs, found \[{channels}\]"
        with pytest.raises(InvalidArgument, match=message):
            op.infer(types)
    types[0] = TensorType((1, channels, 5, 6))
    assert op.infer(types).shape == (1, 4, 4, 5)


def test_groups_with_a_threshold_write_whole_words() -> None:
    types = [TensorType((1, 64, 5, 6), SIGNS), TensorType((4, 32, 2, 2), SIGN_BITS), TensorType((4,), INT32)]
    with pytest.raises(InvalidArgument, match=r"expected whole words of signs, found \[64, 4\]"):
        BinaryConv2d(groups=2, has_threshold=True).infer(types)


def test_binary_layers_are_the_formula() -> None:
    x, w = torch.tensor([[1.0, -1, 1, 1], [1, 1, 1, -1]]), torch.tensor([[1.0, 1, 1, 1], [-1, 1, -1, -1]])
    scale, bias, residual = torch.tensor([2.0, -0.5]), torch.tensor([1.0, 3.0]), torch.tensor([[1.0, 0], [0, -9]])
    sums = [[2.0, -4], [2, 0]]
    assert BinaryDense().reference(x, w).tolist() == sums
    full = BinaryDense(False, True, True, True, RELU).reference(x, w, scale, bias, residual)
    assert full.tolist() == [[6.0, 5], [5, 0]]
    at = torch.tensor([2, -3])
    assert BinaryDense(True).reference(x, w, at).tolist() == [[1.0, -1], [1, 1]], "the threshold itself is +1"
    image, kernel = x.reshape(2, 4, 1, 1), w.reshape(2, 4, 1, 1)
    for pad_one, border in ((False, [0.0, 0]), (True, [4.0, -2])):
        y = BinaryConv2d(padding=(0, 1, 0, 0), pad_one=pad_one).reference(image, kernel)
        assert y[0, :, :, 0].T.tolist() == [sums[0], border]


def test_formats_that_are_not_lowered_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="input format of relu: expected float32, found int32"):
        RELU.infer([TensorType((3,), Int32())])


@pytest.mark.parametrize(
    ("function", "parameters"),
    [("relux", ()), ("relu", (1.0,)), ("leaky_relu", ()), ("leaky_relu", (float("nan"),)), ("elu", (1.0,))],
)
def test_pointwise_functions_are_those_of_the_table(function: str, parameters: tuple[float, ...]) -> None:
    with pytest.raises(InvalidArgument, match="pointwise function|parameters of"):
        Pointwise(function, parameters)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Conv2d((0, 1)),
        lambda: Conv2d((1, 1), (-1, 0, 0, 0)),
        lambda: Conv2d(groups=0),
        lambda: Reduce("median", 0),
        lambda: Pool2d("median", (2, 2), (2, 2)),
        lambda: Pool2d("max", (2, 0), (2, 2)),
        lambda: Pool2d("max", (2, 2), (2, 2), excess=(-1, 0)),
        lambda: ConvTranspose2d((0, 1)),
        lambda: AdaptivePool2d("median", (2, 2)),
    ],
)
def test_impossible_windows(make: Any) -> None:
    with pytest.raises(InvalidArgument, match="window of|groups of|function of"):
        make()


@pytest.mark.parametrize(("channels_last", "pitch"), [(False, 8), (True, -1)])
def test_impossible_pitches(channels_last: bool, pitch: int) -> None:
    with pytest.raises(InvalidArgument, match="pitch"):
        Layout(channels_last, pitch=pitch)


@pytest.mark.parametrize("pitch", [1, 3])
def test_a_pitch_is_wider_than_the_value(pitch: int) -> None:
    """One that is not would put pixels over each other; a file may say so."""
    with pytest.raises(InvalidArgument, match="pitch: expected 0, or more than the 3 channels"):
        assert TensorType((2, 3, 5, 7), layout=Layout(True, pitch=pitch)).bytes


def test_bytes_among_others() -> None:
    type_ = TensorType((2, 3, 1, 2), layout=Layout(True, (0, 0, 1, 0), 8))
    assert type_.bytes == 4 * 3 * 2 * 3
    assert type_.span == 4 * (5 * 8 + 3), "from the first number to the last of six pixels"
    assert str(type_) == "float32[2, 3, 1, 2] channels last halo (0, 0, 1, 0) pitch 8"
    assert TensorType((2, 3, 1, 2)).span == TensorType((2, 3, 1, 2)).bytes == 48
    assert TensorType((0, 3, 1, 2), layout=Layout(True, pitch=8)).span == 0


def test_where_views_lie() -> None:
    image = Layout(True, pitch=8)
    parts = [TensorType((1, channels, 2, 2), layout=image) for channels in (5, 3)]
    whole = TensorType((1, 8, 2, 2), layout=Layout(True))
    assert Concat(1, in_place=True).view_offsets(parts, whole) == (0, 20)
    assert Slice(1, 5, 8, in_place=True).view_offsets([whole], parts[1]) == (-20,)
    rows = [TensorType((size, 4)) for size in (2, 3)]
    assert Concat(0, in_place=True).view_offsets(rows, TensorType((5, 4))) == (0, 32)
    assert Slice(0, 2, 5, in_place=True).view_offsets([TensorType((5, 4))], rows[1]) == (-32,)
    for op in (Concat(1), Slice(1, 0, 5)):
        assert not op.is_view([whole], whole)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Matmul(float("inf")),
        lambda: Matmul(axes=(1, 1)),
        lambda: View((2,), (1, 1)),
        lambda: View((2,), (-1,)),
        lambda: View((2,), (1,), -1),
    ],
)
def test_impossible_products(make: Any) -> None:
    with pytest.raises(InvalidArgument, match="of matmul|view"):
        make()


@pytest.mark.parametrize(("channels_last", "halo"), [(False, (1, 0, 0, 0)), (True, (0, -1, 0, 0)), (True, (1, 1))])
def test_impossible_layouts(channels_last: bool, halo: Any) -> None:
    with pytest.raises(InvalidArgument, match="halo"):
        Layout(channels_last, halo)


def test_layouts_and_their_bytes() -> None:
    type_ = TensorType((2, 3, 5, 7), layout=Layout(True, (1, 2, 3, 4)))
    assert type_.layout.physical(type_.shape) == (2, 5 + 3, 7 + 7, 3)
    assert type_.bytes == 4 * 2 * 8 * 14 * 3
    assert type_.logical == TensorType((2, 3, 5, 7))
    assert str(type_) == "float32[2, 3, 5, 7] channels last halo (1, 2, 3, 4)"
    with pytest.raises(InvalidArgument, match="shape with channels last: expected four axes"):
        Layout(True).physical((2, 3))


def test_views_depend_on_layouts() -> None:
    image, plain = TensorType((1, 3, 4, 5), layout=Layout(True)), TensorType((1, 3, 4, 5))
    pixels = TensorType((1, 4, 5, 3))
    assert Permute((0, 2, 3, 1)).is_view([image], pixels)
    assert not Permute((0, 2, 3, 1)).is_view([plain], pixels)
    assert not Permute((0, 3, 1, 2)).is_view([image], pixels)
    assert Reshape((60,)).is_view([plain], TensorType((60,)))
    assert not Reshape((60,)).is_view([image], TensorType((60,)))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.tuples(st.integers(4, 9), st.integers(4, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
def test_pooling_is_pytorchs(
    image: tuple[int, int], kernel: tuple[int, int], stride: int, pad: bool, all_: bool
) -> None:
    """Without rounding up; the importers' tests have that."""
    x, half = torch.randn(1, 2, *image), (kernel[0] // 2 * pad, kernel[1] // 2 * pad)
    sides = (half[0], half[0], half[1], half[1])
    functional = torch.nn.functional
    expected = functional.max_pool2d(x, kernel, stride, half)
    assert torch.equal(Pool2d("max", kernel, (stride, stride), sides).reference(x), expected)
    name = "average_of_all" if all_ else "average"
    expected = functional.avg_pool2d(x, kernel, stride, half, count_include_pad=all_)
    torch.testing.assert_close(Pool2d(name, kernel, (stride, stride), sides).reference(x), expected)


def test_unknown_arithmetic() -> None:
    with pytest.raises(InvalidArgument, match="arithmetic: expected one of add, sub, mul, .*, maximum, .*, found pow"):
        Arithmetic("pow")


def test_dense_is_the_formula() -> None:
    x, w, b, r = inputs_of([TensorType(shape) for shape in [(2, 3), (4, 3), (4,), (2, 4)]], torch.float32)
    expected = torch.nn.functional.gelu(torch.nn.functional.linear(x, w, b) + r)
    torch.testing.assert_close(Dense(True, True, Pointwise("gelu")).reference(x, w, b, r), expected)


def test_batch_norm_is_pytorchs() -> None:
    layer = torch.nn.BatchNorm1d(3, eps=1e-3).eval()
    for tensor in (layer.weight.data, layer.bias.data, layer.running_mean):
        assert tensor is not None
        tensor.normal_()
    assert layer.running_var is not None
    layer.running_var.uniform_(0.1, 3.0)
    for shape in [(5, 3), (5, 3, 4)]:
        x = torch.randn(shape)
        op = BatchNorm(1e-3)
        result = op.reference(x, layer.weight, layer.bias, layer.running_mean, layer.running_var)
        torch.testing.assert_close(result, layer(x))


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=4), st.lists(st.integers(1, 4), max_size=4))
def test_broadcasting_is_pytorchs(first: list[int], second: list[int]) -> None:
    a, b = torch.zeros(first), torch.zeros(second)
    types: list[Any] = [TensorType(tuple(first)), TensorType(tuple(second))]
    try:
        expected = tuple((a + b).shape)
    except RuntimeError:
        with pytest.raises(InvalidArgument):
            Arithmetic("add").infer(types)
    else:
        assert Arithmetic("add").infer(types).shape == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pad("mirror", (1,), (1,)), "mode of pad: expected one of constant, reflect, replicate, circular"),
        (lambda: Pad("constant", (1,), (-1,)), "sizes of pad"),
        (lambda: Pad("constant", (1, 2), (1,)), "sizes of pad"),
        (lambda: Pad("reflect", (1,), (1,), 2.0), "value of pad"),
        (lambda: ConvTranspose2d(output_padding=(-1, 0)), "groups and output_padding of conv_transpose2d"),
        (lambda: AdaptivePool2d("max", (0, 2)), "size of adaptive_pool2d"),
    ],
)
def test_impossible_pads_and_sizes(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make()


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("sizes", [(1, 2, 3, 0), (0, 3, 1, 1)])
def test_padding_is_pytorchs(mode: str, sizes: tuple[int, int, int, int]) -> None:
    left, right, top, bottom = sizes
    x = torch.arange(40.0).reshape(1, 2, 4, 5)
    result = Pad(mode, (0, 0, top, left), (0, 0, bottom, right)).reference(x)
    assert torch.equal(result, torch.nn.functional.pad(x, sizes, mode=mode))


def test_pads_that_only_put_zeros_around_images() -> None:
    assert Pad("constant", (0, 0, 1, 2), (0, 0, 3, 4)).zero_sides == (1, 3, 2, 4)
    for op in (
        Pad("constant", (0, 0, 1, 2), (0, 0, 3, 4), 1.0),
        Pad("constant", (0, 1, 1, 2), (0, 0, 3, 4)),
        Pad("constant", (0, 1, 2), (0, 3, 4)),
        Pad("replicate", (0, 0, 1, 2), (0, 0, 3, 4)),
    ):
        assert op.zero_sides is None
