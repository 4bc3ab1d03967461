"""What is tried on each target: problems of the ops on signs, by name."""

from __future__ import annotations

import dataclasses

from netopt.kernels.machine.kernel import Problem
from netopt.numerics import FLOAT32, INT32, SIGN_BITS, SIGNS, NumberFormat, Shape
from netopt.ops import CHANNELS_LAST, BinaryConv2d, BinaryDense, Layout, Op, Pointwise, Sign, SignPool2d, TensorType
from netopt.ops.spatial import Sides

_RELU = Pointwise("relu")
_NO_HALO: Sides = (0, 0, 0, 0)


def _convolution(
    op: BinaryConv2d,
    x: Shape,
    weight: Shape,
    *,
    format_: NumberFormat = SIGNS,
    wider: int = 0,
    halo: Sides = _NO_HALO,
) -> Problem:
    """A convolution of x by a weight; `wider` is how much more halo x has than is read, `halo` is the output's."""
    top, bottom, left, right = (side + wider for side in op.padding)
    plain = op.output_shape(x, weight)
    residual = TensorType(plain, FLOAT32, Layout(True, (0, 1, 1, 0)))
    inputs = (
        TensorType(x, format_, Layout(True, (top, bottom, left, right))),
        TensorType(weight, SIGN_BITS),
        *_vectors(op, plain[1]),
        *[residual] * op.has_residual,
    )
    return _problem(op, inputs, SIGNS if op.has_threshold else FLOAT32, Layout(True, halo))


def _dense(op: BinaryDense, rows: int, inputs: int, outputs: int, format_: NumberFormat = SIGNS) -> Problem:
    types = (
        TensorType((rows, inputs), format_),
        TensorType((outputs, inputs), SIGN_BITS),
        *_vectors(op, outputs),
        *[TensorType((rows, outputs))] * op.has_residual,
    )
    return _problem(op, types, SIGNS if op.has_threshold else FLOAT32)


def _vectors(op: BinaryConv2d | BinaryDense, outputs: int) -> list[TensorType]:
    floats = [TensorType((outputs,))] * (op.has_scale + op.has_bias)
    return [TensorType((outputs,), INT32)] * op.has_threshold + floats


def _sign(x: TensorType, *, threshold: bool = False, output: Layout, format_: NumberFormat = SIGNS) -> Problem:
    channels = x.shape[1]
    return _problem(Sign(threshold), (x, *[TensorType((channels,))] * (2 * threshold)), format_, output)


def _problem(op: Op, inputs: tuple[TensorType, ...], format_: NumberFormat, layout: Layout | None = None) -> Problem:
    output = dataclasses.replace(op.infer(inputs), format=format_)
    return Problem(op, inputs, dataclasses.replace(output, layout=layout) if layout else output)


def _ends(name: str, op: BinaryConv2d, x: Shape, weight: Shape, halo: Sides = _NO_HALO) -> dict[str, Problem]:
    """A convolution of signs to floats, with all there may be at its end, and to signs."""
    floats = dataclasses.replace(op, has_scale=True, has_bias=True, has_residual=True, activation=_RELU)
    signs = dataclasses.replace(op, has_threshold=True)
    return {
        f"{name} to {kind}": _convolution(each, x, weight, halo=halo)
        for kind, each in (("floats", floats), ("signs", signs))
    }


CONVOLUTIONS_OF_SIGNS = {
    **_ends("3x3", BinaryConv2d(padding=(1, 1, 1, 1)), (1, 64, 6, 6), (64, 64, 3, 3), (1, 1, 1, 1)),
    # Tails of words of inputs and of outputs, a window and a step that are not square, two images.
    **_ends("odd", BinaryConv2d((2, 1), (1, 1, 2, 2)), (2, 33, 7, 9), (35, 33, 3, 5), (1, 0, 2, 1)),
    **_ends("dilated", BinaryConv2d((1, 1), (2, 2, 1, 1), (2, 1)), (1, 1, 9, 5), (7, 1, 3, 3)),
    **_ends("pad one", BinaryConv2d(padding=(0, 2, 1, 0), pad_one=True), (1, 100, 6, 5), (17, 100, 3, 2)),
    **_ends("1x1", BinaryConv2d(), (2, 64, 6, 5), (40, 64, 1, 1)),
    **_ends("groups", BinaryConv2d(padding=(1, 1, 1, 1), groups=2), (1, 64, 4, 4), (64, 32, 3, 3)),
    **_ends("window above image", BinaryConv2d(padding=(2, 2, 3, 4)), (1, 40, 2, 2), (20, 40, 5, 5)),
    "1x1 of step 2": _convolution(BinaryConv2d((2, 2), has_scale=True), (1, 96, 5, 7), (33, 96, 1, 1)),
    "plain sums": _convolution(BinaryConv2d((2, 2), (1, 1, 1, 1)), (1, 20, 12, 11), (50, 20, 5, 5)),
    "wider halo": _convolution(
        BinaryConv2d(padding=(1, 1, 1, 1), has_scale=True), (1, 96, 5, 5), (33, 96, 3, 3), wider=1
    ),
    # Counts beyond 16 bits.
    "long sums": _convolution(BinaryConv2d(has_scale=True), (1, 1344, 7, 7), (16, 1344, 7, 7)),
}

CONVOLUTIONS_OF_FLOATS = {
    "floats 3x3": _convolution(
        BinaryConv2d(padding=(1, 1, 1, 1), has_scale=True, has_bias=True, has_residual=True, activation=_RELU),
        (1, 32, 6, 6),
        (40, 32, 3, 3),
        format_=FLOAT32,
    ),
    "floats odd": _convolution(
        BinaryConv2d((2, 1), (1, 1, 2, 2), has_scale=True, has_bias=True),
        (2, 3, 7, 9),
        (35, 3, 3, 5),
        format_=FLOAT32,
        halo=(1, 0, 2, 1),
    ),
    "floats 1x1": _convolution(BinaryConv2d(), (2, 33, 4, 5), (17, 33, 1, 1), format_=FLOAT32),
}

DENSE_LAYERS = {
    "dense row": _dense(BinaryDense(has_scale=True, has_bias=True), 1, 100, 10),
    "dense row to signs": _dense(BinaryDense(has_threshold=True), 1, 256, 100),
    "dense odd": _dense(BinaryDense(), 3, 33, 7),
    "dense odd to signs": _dense(BinaryDense(has_threshold=True), 20, 70, 33),
    "dense to floats": _dense(BinaryDense(False, True, True, True, _RELU), 7, 64, 40),
    "dense one channel": _dense(BinaryDense(has_scale=True), 5, 1, 3),
    # Counts beyond 16 bits.
    "dense long sums": _dense(BinaryDense(has_scale=True), 2, 2**16, 3),
    "dense row of floats": _dense(BinaryDense(has_scale=True, has_bias=True), 1, 70, 33, FLOAT32),
    "dense few floats": _dense(BinaryDense(False, True, True, True, _RELU), 3, 64, 40, FLOAT32),
    "dense many floats": _dense(BinaryDense(False, True, True, True, _RELU), 20, 70, 33, FLOAT32),
}

SIGNS_OF_FLOATS = {
    "pack": _sign(TensorType((1, 64, 5, 6), FLOAT32, CHANNELS_LAST), output=Layout(True, (1, 1, 1, 1))),
    "pack above threshold": _sign(
        TensorType((2, 50, 4, 3), FLOAT32, Layout(True, (0, 1, 0, 2))),
        threshold=True,
        output=Layout(True, (0, 1, 2, 0)),
    ),
    "pack one channel": _sign(TensorType((2, 1, 3, 3)), output=CHANNELS_LAST),
    "pack rows": _sign(TensorType((3, 70)), output=Layout()),
    "+1 and -1": _sign(TensorType((2, 19, 3, 3)), output=Layout(True, (1, 0, 0, 1)), format_=FLOAT32),
}

POOLS_OF_SIGNS = {
    "pool": _problem(
        SignPool2d((3, 2), (2, 2), (1, 0, 0, 1)),
        (TensorType((2, 70, 6, 5), SIGNS, Layout(True, (1, 0, 1, 1))), TensorType((70,), SIGN_BITS)),
        SIGNS,
        Layout(True, (0, 1, 1, 0)),
    )
}

CASES = {**CONVOLUTIONS_OF_SIGNS, **CONVOLUTIONS_OF_FLOATS, **DENSE_LAYERS, **SIGNS_OF_FLOATS, **POOLS_OF_SIGNS}
