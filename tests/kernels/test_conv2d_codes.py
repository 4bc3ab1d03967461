"""Convolutions of codes: the kernel's codes are those of the reference in float64, rounded once, to the bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.registry import KERNELS
from netopt.numerics import FLOAT32, Affine, CodeFormat, FixedPoint, NumberFormat, round_scale
from netopt.ops import CHANNELS_LAST, Conv2d, Layout, Pointwise, TensorType
from netopt.ops.spatial import Sides
from tests.kernels.binary import cpu_of, each_cpu
from tests.kernels.codes import assert_exact, bias_format, fixed, random_codes, weight_format
from tests.kernels.harness import assert_packing_is_undone, problem_of, run_kernel
from tests.kernels.images import quick

RELU, HARDTANH = Pointwise("relu"), Pointwise("hardtanh", (-1.5, 3.0))
KINDS = ["u7", "u8", "s8", "s16"]
few = settings(quick, max_examples=5)


def shapes_of(op: Conv2d, x: tuple[int, ...], weight: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Of x, the weight, and the bias and the residual that the op has."""
    plain = dataclasses.replace(op, has_bias=False, has_residual=False, activation=None)
    output = plain.infer([TensorType(x), TensorType(weight)]).shape
    return [x, weight, *[(weight[0],)] * op.has_bias, *[output] * op.has_residual]


def layouts_of(op: Conv2d, x: tuple[int, ...], weight: tuple[int, ...], more: Sides = (0, 0, 0, 0)) -> list[Layout]:
    """Of all inputs: x with a halo of what is read and `more`, the residual with another one."""
    top, bottom, left, right = (read + side for read, side in zip(op.halo(x, weight), more, strict=True))
    others = [Layout()] * (1 + op.has_bias) + [Layout(True, (0, 1, 2, 0))] * op.has_residual
    return [Layout(True, (top, bottom, left, right)), *others]


def check(
    op: Conv2d,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    formats: Sequence[NumberFormat],
    written: NumberFormat,
    *,
    halo: Sides = (0, 0, 0, 0),
    codes: Sequence[torch.Tensor] = (),
    extreme: bool = False,
    **options: Any,
) -> torch.Tensor:
    """The kernel's result for random codes, or these, which must be exact."""
    codes = codes or [
        random_codes(shape, format_, seed, extreme=extreme)
        for seed, (shape, format_) in enumerate(zip(shapes_of(op, x, weight), formats, strict=True))
        if isinstance(format_, CodeFormat)
    ]
    options = {"output": CHANNELS_LAST, "layouts": layouts_of(op, x, weight, halo)} | options
    return assert_exact(op, codes, formats, written, constants=range(1, 2 + op.has_bias), **options)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Conv2d, tuple[int, ...], tuple[int, ...]]:
    """An op, and shapes of x and weight: odd channels, windows and steps that are not square, groups, dilation."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    outputs, channels = draw(st.integers(1, 20)), draw(st.integers(1 + (groups > 1), 20))
    window = draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (2, 3), (5, 1)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]))
    op = Conv2d(
        draw(st.sampled_from([(1, 1), (2, 2), (1, 2)])),
        draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)])),
        dilation,
        groups,
        has_bias=draw(st.booleans()),
        has_residual=draw(st.booleans()),
        activation=draw(st.sampled_from([None, RELU, HARDTANH])),
    )
    size = [dilation[i] * (window[i] - 1) + draw(st.integers(1, 9)) for i in range(2)]
    return op, (draw(st.integers(1, 2)), channels * groups, *size), (outputs * groups, channels, *window)


@st.composite
def formats_of(draw: st.DrawFn, op: Conv2d, outputs: int) -> tuple[list[CodeFormat], CodeFormat]:
    """Formats of all inputs and of the output, whose step is near that of the sums, or far from it."""
    x, weight = fixed(draw(st.sampled_from(KINDS)), draw(st.integers(-8, 40))), weight_format(draw, outputs)
    spread = draw(st.sampled_from([st.integers(4, 12), st.integers(-6, 30)]))
    place = x.fractions[0] + min(weight.fractions) - draw(spread)
    formats: list[CodeFormat] = [x, weight]
    if op.has_bias:
        formats.append(bias_format(x, weight, draw(st.sampled_from([24, 32]))))
    if op.has_residual:
        formats.append(fixed(draw(st.sampled_from(KINDS)), place + draw(st.integers(-3, 3))))
    return formats, fixed(draw(st.sampled_from(KINDS)), place)


@quick
@given(case=convolutions(), data=st.data(), halo=st.tuples(*[st.integers(0, 1)] * 4), extreme=st.booleans())
def test_any_convolution(case: Any, data: st.DataObject, halo: Sides, extreme: bool) -> None:
    op, x, weight = case
    formats, written = data.draw(formats_of(op, weight[0]))
    check(op, x, weight, formats, written, halo=halo, output=Layout(True, halo[::-1]), extreme=extreme)


@each_cpu
@few
@given(case=convolutions(), data=st.data(), extreme=st.booleans())
def test_any_convolution_on_other_cpus(name: str, case: Any, data: st.DataObject, extreme: bool) -> None:
    op, x, weight = case
    formats, written = data.draw(formats_of(op, weight[0]))
    check(op, x, weight, formats, written, extreme=extreme, cpu=cpu_of(name))


@each_cpu
@pytest.mark.parametrize("x", KINDS)
@pytest.mark.parametrize(("bits", "channels"), [(8, 3), (8, 64), (16, 64)])
def test_each_product(name: str, x: str, bits: int, channels: int) -> None:
    """Pairs, fours, blocks and float64, of channels that are a multiple of them and others."""
    op = Conv2d((1, 1), (1, 1, 1, 1), has_bias=True, has_residual=True, activation=RELU)
    source, weight = fixed(x, 4), FixedPoint(bits, tuple(6 + i % 3 for i in range(20)))
    formats = [source, weight, bias_format(source, weight), fixed("s8", 3)]
    options: dict[str, Any] = {"cpu": cpu_of(name), "output": Layout(True, (1, 1, 1, 1))}
    for extreme in (False, True):
        shapes = (1, channels, 2, 7), (20, channels, 3, 3)
        check(op, *shapes, formats, fixed(x, -2 if bits < 16 else -9), extreme=extreme, **options)


@each_cpu
@pytest.mark.parametrize("x", ["u7", "s8"])
def test_each_schedule(name: str, x: str) -> None:
    op, cpu = Conv2d((1, 1), (1, 1, 1, 1), has_residual=True), cpu_of(name)
    formats = [fixed(x, 4), FixedPoint(8, 6), fixed("s8", 3)]
    shapes = (1, 6, 3, 7), (40, 6, 3, 3)
    problem = problem_of(op, [torch.zeros(shape) for shape in shapes_of(op, *shapes)], formats=formats)
    problem = dataclasses.replace(
        problem,
        inputs=tuple(
            dataclasses.replace(t, layout=at) for t, at in zip(problem.inputs, layouts_of(op, *shapes), strict=True)
        ),
        output=TensorType(problem.output.shape, fixed("s8", 1), CHANNELS_LAST),
    )
    for schedule in KERNELS[Conv2d].schedules(problem, cpu)[::5]:
        check(op, *shapes, formats, fixed("s8", 1), cpu=cpu, schedule=schedule)


@each_cpu
@pytest.mark.parametrize(("code", "expected"), [(127, 18_653_760), (-128, -18_800_640)])
def test_the_largest_sums_do_not_saturate(name: str, code: int, expected: int) -> None:
    """255 x 127 over a window of 3 x 3 x 64, where a peer gives half."""
    formats = [FixedPoint(8, 0, signed=False), FixedPoint(8, 0)]
    x, weight = torch.full((1, 64, 3, 3), 255, dtype=torch.uint8), torch.full((8, 64, 3, 3), code, dtype=torch.int8)
    layouts = layouts_of(Conv2d(), (1, 64, 3, 3), (8, 64, 3, 3))
    found = run_kernel(
        Conv2d(),
        [x, weight],
        constants=(1,),
        formats=formats,
        layouts=layouts,
        output=CHANNELS_LAST,
        output_format=FLOAT32,
        cpu=cpu_of(name),
    )
    assert found.flatten().tolist() == [expected] * 8


def test_partial_sums_of_15_at_shift_4_give_60() -> None:
    """64 channels whose products are 15: 960 / 16, where a predecessor shifted each product, and gave 0."""
    formats = [FixedPoint(8, 2), FixedPoint(8, 2)]
    codes = [torch.full((1, 64, 1, 1), 5, dtype=torch.int8), torch.full((1, 64, 1, 1), 3, dtype=torch.int8)]
    for _ in range(2):  # the same when it runs again
        found = check(Conv2d(), (1, 64, 1, 1), (1, 64, 1, 1), formats, FixedPoint(8, 0), codes=codes)
        assert found.item() == 60


@pytest.mark.parametrize(("bias", "expected"), [(7, 0), (8, 1), (-8, 0), (-9, -1), (-24, -1), (-25, -2)])
def test_halves_are_rounded_upward(bias: int, expected: int) -> None:
    """floor(x + 1/2), of negative numbers, too."""
    formats = [FixedPoint(8, 2), FixedPoint(8, 2), FixedPoint(24, 4)]
    codes = [torch.zeros(1, 1, 1, 1).char(), torch.ones(1, 1, 1, 1).char(), torch.tensor([bias], dtype=torch.int32)]
    op = Conv2d(has_bias=True)
    assert check(op, (1, 1, 1, 1), (1, 1, 1, 1), formats, FixedPoint(8, 0), codes=codes).item() == expected


@pytest.mark.parametrize("bounds", [(-1.5, 3.0), (-1000.0, 1000.0), (50.0, 60.0), (-60.0, -50.0), (0.0, 0.4999)])
@pytest.mark.parametrize("written", ["u8", "s8"])
def test_bounds_beyond_the_codes(bounds: tuple[float, float], written: str) -> None:
    op = Conv2d(activation=Pointwise("hardtanh", bounds))
    check(op, (1, 8, 4, 4), (5, 8, 3, 3), [fixed("s8", 4), FixedPoint(8, 6)], fixed(written, 2))


@pytest.mark.parametrize("op", [Conv2d(has_bias=True), Conv2d(has_bias=True, has_residual=True, activation=RELU)])
def test_a_bias_that_sums_cannot_begin_with(op: Conv2d) -> None:
    """The largest sums and biases of 32 bits together are beyond 32 bits; they are not lost."""
    formats = [fixed("u8", 0), FixedPoint(8, 0), FixedPoint(32, 0), fixed("s16", -16)][: 3 + op.has_residual]
    check(op, (1, 64, 4, 4), (6, 64, 3, 3), formats, fixed("s16", -16), extreme=True)
    check(op, (1, 64, 4, 4), (6, 64, 3, 3), formats, fixed("s16", -16))


@pytest.mark.parametrize("activation", [None, RELU, HARDTANH])
@pytest.mark.parametrize("kinds", ["float bias", "float residual", "both"])
def test_biases_and_residuals_of_floats(activation: Pointwise | None, kinds: str) -> None:
    """They are added as the reference adds them; NaN is the code of 0."""
    op = Conv2d(has_bias=True, has_residual=True, activation=activation)
    x, weight = (1, 8, 4, 4), (5, 8, 3, 3)
    formats: list[NumberFormat] = [fixed("u8", 4), FixedPoint(8, 6), FixedPoint(24, 10), fixed("s8", 2)]
    codes = [
        random_codes(shape, format_, 0)
        for shape, format_ in zip(shapes_of(op, x, weight), formats, strict=True)
        if isinstance(format_, CodeFormat)
    ]
    generator = torch.Generator().manual_seed(0)
    if kinds != "float residual":
        formats[2], codes[2] = FLOAT32, torch.randn(5, generator=generator)
    if kinds != "float bias":
        formats[3], codes[3] = FLOAT32, 9 * torch.randn(codes[3].shape, generator=generator)
        codes[3].flatten()[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    check(op, x, weight, formats, fixed("s8", 0), codes=codes)


@each_cpu
@few
@given(case=convolutions(), data=st.data())
def test_affine_codes(name: str, case: Any, data: st.DataObject) -> None:
    """Real scales, and codes of which 0 is not that of the number 0: in x, the residual and the output."""
    op, x, weight = case
    scales = st.floats(0.001, 2.0).map(round_scale)
    zeros = data.draw(st.tuples(*[st.integers(0, 255)] * 3))
    outputs = weight[0]
    of_weight = Affine(8, tuple(data.draw(scales) for _ in range(outputs)))
    of_x = Affine(8, data.draw(scales), zeros[0], signed=False)
    formats: list[CodeFormat] = [of_x, of_weight]
    if op.has_bias:
        formats.append(Affine(24, tuple(step * of_x.steps[0] for step in of_weight.steps)))
    if op.has_residual:
        formats.append(Affine(8, data.draw(scales), zeros[1], signed=False))
    written = Affine(8, data.draw(scales), zeros[2] - 128)
    check(op, x, weight, formats, written, output=Layout(True, (1, 0, 0, 1)), cpu=cpu_of(name))


@pytest.mark.parametrize("residual", [FLOAT32, FixedPoint(8, 2)])
def test_floats_of_codes(residual: NumberFormat) -> None:
    """Sums of up to 20 bits are exact in float32, and so is what is added to them here."""
    op = Conv2d(has_bias=True, has_residual=True, activation=RELU)
    x, weight = (1, 5, 4, 4), (7, 5, 3, 3)
    formats = [fixed("u8", 4), FixedPoint(8, tuple(range(7))), FixedPoint(24, tuple(range(4, 11))), residual]
    codes = [
        random_codes(shape, format_, 0) if isinstance(format_, CodeFormat) else torch.ones(shape)
        for shape, format_ in zip(shapes_of(op, x, weight), formats, strict=True)
    ]
    codes[2] //= 64
    check(op, x, weight, formats, FLOAT32, codes=codes)


def test_other_activations_are_off_by_one_code_at_most() -> None:
    op = Conv2d(has_bias=True, activation=Pointwise("silu"))
    formats = [fixed("u8", 4), FixedPoint(8, 6), FixedPoint(24, 10)]
    x, weight = (1, 8, 6, 6), (9, 8, 3, 3)
    codes = [random_codes(s, f, 0) for s, f in zip(shapes_of(op, x, weight), formats, strict=True)]
    found = run_kernel(
        op,
        codes,
        constants=(1, 2),
        formats=formats,
        layouts=layouts_of(op, x, weight),
        output=CHANNELS_LAST,
        output_format=fixed("s8", 2),
    )
    numbers = [f.decode(c, torch.float64) for c, f in zip(codes, formats, strict=True)]
    assert (found.int() - fixed("s8", 2).encode(op.reference(*numbers)).int()).abs().max() <= 1


@pytest.mark.parametrize("op", [Conv2d(padding=(1, 1, 1, 1)), Conv2d((1, 1), (1, 1, 1, 1), groups=2)])
def test_two_threads(op: Conv2d) -> None:
    channels = 64 // op.groups
    check(op, (1, 64, 24, 24), (64, channels, 3, 3), [fixed("s8", 4), FixedPoint(8, 6)], fixed("s8", 0), threads=2)


def test_the_output_takes_the_place_of_the_residual() -> None:
    op, at = Conv2d(padding=(1, 1, 1, 1), has_residual=True, activation=RELU), Layout(True, (1, 1, 1, 1))
    formats, shapes = [fixed("u8", 4), FixedPoint(8, 6), fixed("u8", 2)], ((1, 20, 9, 9), (20, 20, 3, 3))
    layouts = [*layouts_of(op, *shapes)[:-1], at]
    check(op, *shapes, formats, fixed("u8", 2), in_place=2, output=at, layouts=layouts)


@pytest.mark.parametrize(
    "formats",
    [[fixed("u8", 4), FixedPoint(8, 6), FixedPoint(24, 10)], [fixed("s16", 4), FixedPoint(16, 6), FixedPoint(32, 10)]],
)
def test_packing_is_undone(formats: list[CodeFormat]) -> None:
    op = Conv2d(has_bias=True)
    codes = [random_codes(s, f, 0) for s, f in zip([(1, 7, 5, 5), (21, 7, 3, 3), (21,)], formats, strict=True)]
    problem = problem_of(op, codes, formats=formats, layouts=[CHANNELS_LAST], output=CHANNELS_LAST)
    for name in ("host", "AVX2"):
        cpu = cpu_of(name)
        for schedule in KERNELS[Conv2d].schedules(problem, cpu)[:4]:
            assert_packing_is_undone(problem, schedule, codes, cpu=cpu)


def test_layers_share_machine_code_wherever_their_positions_are() -> None:
    """By shifts, and where steps are real numbers; with bounds of other numbers, too."""
    op, kernel = Conv2d(has_residual=True, activation=HARDTANH), KERNELS[Conv2d]
    shapes = shapes_of(op, (1, 8, 5, 5), (8, 8, 3, 3))

    def code(x: CodeFormat, weight: CodeFormat, residual: CodeFormat, written: CodeFormat) -> str:
        other = dataclasses.replace(op, activation=Pointwise("hardtanh", (0.0, 9.0))) if x.steps[0] < 0.1 else op
        tensors = [torch.zeros(shape) for shape in shapes]
        problem = problem_of(other, tensors, formats=[x, weight, residual], output_format=written)
        return kernel.code_problem(problem).key()

    shifted = code(fixed("u8", 4), FixedPoint(8, tuple(range(3, 11))), fixed("u8", 1), fixed("u8", 2))
    assert shifted == code(fixed("u8", 2), FixedPoint(8, 6), fixed("u8", 3), fixed("u8", 3))
    assert shifted != code(fixed("s8", 2), FixedPoint(8, 6), fixed("u8", 3), fixed("u8", 3))
    one = [Affine(8, 0.5, 3), Affine(8, 0.25), Affine(8, 0.125), Affine(8, 0.5)]
    other = [Affine(8, 0.25, 3), Affine(8, (0.5,) * 8), Affine(8, 0.375), Affine(8, 0.75)]
    assert code(*one) == code(*other)
    # What is not shifted, to the left here, is other code.
    assert code(fixed("u8", 2), FixedPoint(8, 2), fixed("u8", 3), fixed("u8", 9)) != shifted
