"""Formats in kernels: rounding to the bit, and every kernel that reads or writes bfloat16."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import halide as hl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.machine.formats import Array, Source, stored
from netopt.kernels.registry import KERNELS
from netopt.numerics import BFLOAT16, FLOAT32, Affine, CodeFormat, FixedPoint
from netopt.ops import (
    CHANNELS_LAST,
    ROW_MAJOR,
    AdaptivePool2d,
    Arithmetic,
    ChannelShuffle,
    Concat,
    Conv2d,
    Dense,
    LayerNorm,
    Layout,
    Op,
    Permute,
    PixelShuffle,
    Pointwise,
    Pool2d,
    Relayout,
    Resize,
    Slice,
    SpatialMean,
    TensorType,
    Winograd2d,
)
from netopt.ops.winograd2d import transform_weight
from tests.kernels import harness
from tests.kernels.harness import problem_of, run_kernel
from tests.kernels.images import A, B, randn
from tests.tolerance import assert_within, judge_op

RELU = Pointwise("relu")


def test_every_bfloat16_and_what_lies_between_is_rounded_as_pytorch_rounds() -> None:
    """All upper halves of a float32, with lower halves around the ties; NaN stays NaN."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    bits = np.concatenate([upper | lower for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    values = bits.view(np.float32)
    param, i, out = hl.ImageParam(hl.Float(32), 1), hl.Var("i"), hl.Func("out")
    out[i] = stored(param[i], BFLOAT16)
    out.vectorize(i, host_cpu().lanes)
    result = np.zeros(values.size, np.uint16)
    out.compile_to_callable([param], hl.Target(host_cpu().target))(hl.Buffer(values), hl.Buffer(result))
    expected = torch.from_numpy(values).bfloat16()
    assert torch.equal(BFLOAT16.to_tensor(result, result.shape).isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert np.array_equal(result[numbers], BFLOAT16.to_array(expected)[numbers])
    assert np.array_equal(result, BFLOAT16.to_array(BFLOAT16.encode(torch.from_numpy(values)))), "NaN, too"


CODES: list[CodeFormat] = [
    *(FixedPoint(bits, fraction) for bits, fraction in ((8, 3), (8, -5), (16, 15), (16, 125), (16, -112))),
    *(FixedPoint(bits, fraction, signed=False) for bits, fraction in ((7, 3), (7, -4), (8, 5), (8, 40))),
    Affine(8, 171 / 2**12),
    Affine(8, 0.75, -100),
    Affine(8, 253 * 2.0**-112, 200, signed=False),
    Affine(7, 3.0, signed=False),
    Affine(16, 255 / 2**20, 12345),
    Affine(16, 129 * 2.0**104),
]


def _around(format_: CodeFormat, dtype: type[np.floating[Any]]) -> Array:
    """All ties and their neighbours, what is beyond all codes, and NaN."""
    middles = np.arange(format_.codes.start - 3, format_.codes.stop + 3) - format_.zero + 0.5
    with np.errstate(over="ignore"):
        ties = (middles * format_.steps[0]).astype(dtype)
    beyond = np.array([np.inf, -np.inf, np.nan, 3e38, -3e38, 0.0, -0.0], dtype)
    return np.concatenate([ties, np.nextafter(ties, dtype(-np.inf)), np.nextafter(ties, dtype(np.inf)), beyond])


@pytest.mark.parametrize("format_", CODES, ids=str)
def test_codes_are_rounded_and_read_as_on_tensors(format_: CodeFormat) -> None:
    """In expressions of float32; then every code."""
    values = _around(format_, np.float32)
    codes = _run(lambda x: stored(x, format_), hl.Float(32), format_.dtype, values)
    assert np.array_equal(codes, format_.to_array(format_.encode(torch.from_numpy(values))))
    every = np.arange(format_.codes.start, format_.codes.stop).astype(format_.dtype)
    source = Source("x", 1, format_)
    numbers = _run_source(source, lambda i: source[i], np.dtype(np.float32), every)
    assert np.array_equal(numbers, format_.decode(torch.from_numpy(every)).numpy())


@pytest.mark.parametrize("format_", [*CODES, FixedPoint(24, 8), FixedPoint(32, -3), Affine(32, 65535.0)], ids=str)
def test_codes_of_float64_are_rounded_and_read_as_on_tensors(format_: CodeFormat) -> None:
    """In expressions of float64, which is what makes sums exact."""
    if format_.bits <= 16:
        values = _around(format_, np.float64)
        every = np.arange(format_.codes.start, format_.codes.stop).astype(format_.dtype)
    else:
        most, chance = 2 ** (format_.bits - 1), np.random.default_rng(0)
        ends = [-most, -most + 1, -1, 0, 1, most - 2, most - 1]
        every = np.concatenate([ends, chance.integers(-most, most, 1000)]).astype(format_.dtype)
        ties = (every + 0.5) * format_.steps[0]
        values = np.concatenate([ties, [np.inf, -np.inf, np.nan, 1e300, -1e300]])
    codes = _run(lambda x: stored(x, format_), hl.Float(64), format_.dtype, values)
    assert np.array_equal(codes, format_.to_array(format_.encode(torch.from_numpy(values))))
    source = Source("x", 1, format_)
    numbers = _run_source(source, source.wide, np.dtype(np.float64), every)
    assert np.array_equal(numbers, format_.decode(torch.from_numpy(every), torch.float64).numpy())


@pytest.mark.parametrize("format_", [Affine(8, 171 / 2**12, 5), Affine(16, 253 / 2**16)], ids=str)
def test_sums_of_products_become_the_codes_of_tensors(format_: Affine) -> None:
    """Whole sums of 37 bits next to where the code changes, in the step of two scales: kernels round as tensors do."""
    step, chance = (255 / 2**9) * (199 / 2**17), np.random.default_rng(0)
    codes = chance.integers(format_.codes.start - 2, format_.codes.stop + 2, 4000)
    halves = np.floor((codes - format_.zero + 0.5) * format_.steps[0] / step)
    sums = np.concatenate([halves - 1, halves, halves + 1, [2.0**37, -(2.0**37)]])
    values = sums * step
    assert all(Fraction(value) == int(whole) * Fraction(step) for value, whole in zip(values, sums, strict=True))
    found = _run(lambda x: stored(x * hl.f64(step), format_), hl.Float(64), format_.dtype, sums)
    expected = [
        max(format_.codes.start, min(format_.codes.stop - 1, math.floor(q + Fraction(1, 2)) + format_.zero))
        for q in (Fraction(value) / Fraction(format_.scale) for value in values)
    ]
    assert found.tolist() == format_.encode(torch.from_numpy(values)).tolist() == expected


def _run(function: Callable[[hl.Expr], hl.Expr], read: hl.Type, written: np.dtype[Any], values: Array) -> Array:
    """A kernel of one input in vectors."""
    param, i, out = hl.ImageParam(read, 1, "x"), hl.Var("i"), hl.Func("out")
    out[i] = function(param[i])
    return _call(out, i, param, written, values)


def _run_source(source: Source, function: Callable[[hl.Var], hl.Expr], written: np.dtype[Any], values: Array) -> Array:
    """A kernel that reads a source in vectors."""
    i, out = hl.Var("i"), hl.Func("out")
    out[i] = function(i)
    return _call(out, i, source.param, written, values)


def _call(out: hl.Func, i: hl.Var, param: hl.ImageParam, written: np.dtype[Any], values: Array) -> Array:
    out.vectorize(i, host_cpu().lanes)
    result = np.zeros(values.size, written)
    out.compile_to_callable([param], hl.Target(host_cpu().target))(hl.Buffer(values), hl.Buffer(result))
    return result


def assert_matches(
    op: Op, tensors: list[torch.Tensor], layouts: list[Layout], output: Layout, **arguments: Any
) -> None:
    """The kernel's result is within its bound, whether it writes float32 or bfloat16."""
    for format_ in (FLOAT32, BFLOAT16):
        result = run_kernel(op, tensors, layouts=layouts, output=output, output_format=format_, **arguments)
        assert result.dtype == (torch.bfloat16 if format_ == BFLOAT16 else torch.float32)
        assert_within(result.float(), judge_op(op, tensors, format_))


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    batch=st.integers(1, 2),
    image=st.tuples(st.integers(5, 8), st.integers(5, 11)),
    channels=st.tuples(st.integers(1, 7), st.integers(1, 35)),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.integers(1, 2),
    residual=st.booleans(),
    pitch=st.sampled_from([0, 20]),
)
def test_any_convolution(
    batch: int,
    image: tuple[int, int],
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: int,
    residual: bool,
    pitch: int,
) -> None:
    op = Conv2d(stride, (1, 1, 0, 1), (1, dilation), groups, True, residual, RELU)
    x, weight = randn(batch, channels[0] * groups, *image), randn(channels[1] * groups, channels[0], *kernel, seed=1)
    tensors = [x.bfloat16(), weight.bfloat16(), randn(channels[1] * groups, seed=2)]
    if residual:
        plain = dataclasses.replace(op, has_residual=False)
        tensors.append(randn(*plain.infer([TensorType(tuple(t.shape)) for t in tensors]).shape, seed=3).bfloat16())
    layouts = [Layout(True, (1, 2, 1, 1), pitch), ROW_MAJOR, ROW_MAJOR, *[A] * residual]
    assert_matches(op, tensors, layouts, B, constants=(1, 2))


@pytest.mark.parametrize("channels", [5, 32])
def test_depthwise_multiplies_in_float32(channels: int) -> None:
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), channels, True)
    tensors = [randn(1, channels, 6, 9).bfloat16(), randn(channels, 1, 3, 3, seed=1), randn(channels, seed=2)]
    assert_matches(op, tensors, [Layout(True, (1, 1, 1, 1)), ROW_MAJOR, ROW_MAJOR], B, constants=(1, 2))


@pytest.mark.parametrize("rows", [(), (1,), (3, 7)])
@pytest.mark.parametrize("inputs", [1, 2, 33, 1030])
def test_dense(rows: tuple[int, ...], inputs: int) -> None:
    op = Dense(True, False, RELU)
    tensors = [randn(*rows, inputs).bfloat16(), randn(21, inputs, seed=1).bfloat16(), randn(21, seed=2)]
    assert_matches(op, tensors, [], ROW_MAJOR, constants=(1, 2))


@pytest.mark.parametrize("tile", [2, 4])
def test_winograd(tile: int) -> None:
    op = Winograd2d(tile, (1, 1, 1, 1), True, True, RELU)
    weight = transform_weight(randn(20, 5, 3, 3, seed=1), tile)
    tensors = [randn(2, 5, 7, 9).bfloat16(), weight, randn(20, seed=2), randn(2, 20, 7, 9, seed=3).bfloat16()]
    layouts = [Layout(True, op.halo((2, 5, 7, 9), tuple(weight.shape))), ROW_MAJOR, ROW_MAJOR, A]
    assert_matches(op, tensors, layouts, B, constants=(1, 2))


def test_a_cpu_without_the_instructions_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slower, but a file may come from elsewhere."""
    monkeypatch.setattr(harness, "host_cpu", lambda: dataclasses.replace(host_cpu(), has_bfloat16=False))
    tensors = [randn(1, 3, 5, 9).bfloat16(), randn(20, 3, 3, 3, seed=1).bfloat16()]
    assert_matches(Conv2d(), tensors, [A, ROW_MAJOR], B, constants=(1,))
    assert_matches(Dense(), [randn(3, 34).bfloat16(), randn(20, 34, seed=1).bfloat16()], [], ROW_MAJOR, constants=(1,))


IMAGE = (2, 6, 5, 7)
OTHERS: list[tuple[Op, list[tuple[int, ...]]]] = [
    (Pool2d("max", (3, 2), (2, 1), (1, 1, 0, 0)), [IMAGE]),
    (Pool2d("average", (2, 2), (2, 2)), [IMAGE]),
    (AdaptivePool2d("average", (3, 2)), [IMAGE]),
    (SpatialMean(), [IMAGE]),
    (Resize("bilinear", (10, 9), (0.5, 0.75)), [IMAGE]),
    (PixelShuffle(2), [(1, 8, 3, 5)]),
    (ChannelShuffle(2), [IMAGE]),
    (RELU, [IMAGE]),
    (Arithmetic("mul"), [IMAGE, (2, 6, 1, 1)]),
    (Concat(1), [IMAGE, (2, 3, 5, 7)]),
    (Slice(1, 1, 5), [IMAGE]),
    (Relayout(), [IMAGE]),
]


@pytest.mark.parametrize(("op", "shapes"), OTHERS, ids=[f"{op.label} {i}" for i, (op, _) in enumerate(OTHERS)])
@pytest.mark.parametrize("layout", [A, CHANNELS_LAST])
def test_images(op: Op, shapes: list[tuple[int, ...]], layout: Layout) -> None:
    tensors = [randn(*shape, seed=number).bfloat16() for number, shape in enumerate(shapes)]
    assert_matches(op, tensors, [layout] * len(tensors), CHANNELS_LAST if layout == CHANNELS_LAST else B)


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (Pointwise("gelu"), [(3, 37)]),
        (Arithmetic("add"), [(3, 37), (3, 37)]),
        (Arithmetic("mul"), [(3, 37), (37,)]),
        (LayerNorm(1, 1e-5), [(5, 37), (37,), (37,)]),
        (Permute((1, 0)), [(5, 9)]),
    ],
    ids=lambda value: value.label if isinstance(value, Op) else "",
)
def test_row_major(op: Op, shapes: list[tuple[int, ...]]) -> None:
    tensors = [randn(*shape, seed=number) for number, shape in enumerate(shapes)]
    assert_matches(op, [tensors[0].bfloat16(), *tensors[1:]], [], ROW_MAJOR)


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        (Conv2d(), [(1, 3, 5, 6), (20, 3, 3, 3)]),
        (Conv2d(groups=2), [(1, 6, 5, 6), (20, 3, 1, 1)]),
        (Dense(), [(2, 7), (40, 7)]),
    ],
)
def test_packed_weights_are_unpacked_to_the_bit(op: Op, shapes: list[tuple[int, ...]]) -> None:
    tensors = [randn(*shape).bfloat16() for shape in shapes]
    layouts = [CHANNELS_LAST] if len(shapes[0]) == 4 else []
    problem = problem_of(op, tensors, 1, layouts, layouts[0] if layouts else ROW_MAJOR, BFLOAT16)
    kernel, weight = KERNELS[type(op)], BFLOAT16.to_array(tensors[1])
    for schedule in kernel.schedules(problem, host_cpu())[:4]:
        packed = kernel.pack(problem, schedule, host_cpu(), 1, weight)
        assert packed.shape == kernel.argument_shapes(problem, schedule, host_cpu())[1]
        assert np.array_equal(kernel.unpack(problem, schedule, host_cpu(), 1, packed), weight)


def test_nan_meets_no_weight_of_zero_outside_its_window() -> None:
    """The last pair of an odd number of terms begins one term early, and reads nothing beyond the window."""
    op = Conv2d((1, 1), (0, 0, 0, 0))
    x = randn(1, 3, 5, 9)
    x[0, 0, 2, 4] = float("nan")
    tensors = [x.bfloat16(), randn(8, 3, 3, 3, seed=1).bfloat16()]
    result = run_kernel(op, tensors, constants=(1,), layouts=[CHANNELS_LAST], output=CHANNELS_LAST)
    expected = torch.zeros(3, 7, dtype=torch.bool)
    expected[:, 2:5] = True
    assert torch.equal(result.isnan()[0], expected.expand(8, 3, 7))
