"""Convolutions of codes: the kernel's codes are those of the reference in float64, rounded once, to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Schedule
from netopt.kernels.registry import KERNELS
from netopt.numerics import FLOAT32, CodeFormat, FixedPoint, NumberFormat
from netopt.ops import CHANNELS_LAST, Conv2d, Layout, Pointwise, TensorType
from netopt.ops.spatial import Sides
from tests.kernels.binary import CPUS, cpu_of, each_cpu
from tests.kernels.codes import assert_exact, bias_format, fixed, random_codes, weight_format
from tests.kernels.harness import assert_packing_is_undone, problem_of
from tests.kernels.images import quick

RELU, HARDTANH = Pointwise("relu"), Pointwise("hardtanh", (-1.5, 3.0))


def codes_of(
    op: Conv2d, x: tuple[int, ...], weight: tuple[int, ...], formats: list[CodeFormat], *, extreme: bool = False
) -> list[torch.Tensor]:
    """Random codes for all inputs of the op: x, weight, bias if it has one, residual if it has one."""
    plain = dataclasses.replace(op, has_bias=False, has_residual=False, activation=None)
    shapes = [x, weight]
    shapes += [(weight[0],)] * op.has_bias
    shapes += [plain.infer([TensorType(x), TensorType(weight)]).shape] * op.has_residual
    return [
        random_codes(shape, format_, seed, extreme=extreme and seed < 2)
        for seed, (shape, format_) in enumerate(zip(shapes, formats, strict=True))
    ]


def assert_codes(
    op: Conv2d,
    codes: list[torch.Tensor],
    formats: list[CodeFormat],
    written: NumberFormat,
    *,
    halo: Sides = (0, 0, 0, 0),
    output: Layout = CHANNELS_LAST,
    cpu: Cpu | None = None,
    schedule: Schedule | None = None,
    **options: Any,
) -> torch.Tensor:
    reads = op.halo(tuple(codes[0].shape), tuple(codes[1].shape))
    layouts = [Layout(True, tuple(read + more for read, more in zip(reads, halo, strict=True)))]
    layouts += [Layout()] * (1 + op.has_bias) + [Layout(True, (0, 1, 2, 0))] * op.has_residual
    constants = (1, 2) if op.has_bias else (1,)
    return assert_exact(
        op,
        codes,
        formats,
        written,
        constants=constants,
        layouts=layouts,
        output=output,
        cpu=cpu,
        schedule=schedule,
        **options,
    )


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Conv2d, tuple[int, ...], tuple[int, ...]]:
    """An op and the shapes of x and weight: odd channels, windows and steps that are not square, groups, dilation."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    channels, outputs = (draw(st.integers(1, 20)) for _ in range(2))
    if groups > 1 and channels == 1:
        channels = 2
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
    x = (draw(st.integers(1, 2)), channels * groups, *size)
    return op, x, (outputs * groups, channels, *window)


@st.composite
def formats_of(draw: st.DrawFn, op: Conv2d, outputs: int, kinds: list[str]) -> tuple[list[CodeFormat], CodeFormat]:
    """Formats of all inputs, and of the output: near enough for sums to be of the output's size, or far from it."""
    kind = draw(st.sampled_from(kinds))
    x, weight = fixed(kind, draw(st.integers(-8, 40))), weight_format(draw, outputs)
    unit = x.fractions[0] + min(weight.fractions)
    spread = draw(st.sampled_from([st.integers(4, 12), st.integers(-6, 30)]))
    written = fixed(draw(st.sampled_from(kinds)), unit - draw(spread))
    formats: list[CodeFormat] = [x, weight]
    if op.has_bias:
        formats.append(bias_format(x, weight, draw(st.sampled_from([24, 32]))))
    if op.has_residual:
        formats.append(fixed(draw(st.sampled_from(kinds)), written.fractions[0] + draw(st.integers(-3, 3))))
    return formats, written


@quick
@given(case=convolutions(), data=st.data(), halo=st.tuples(*[st.integers(0, 1)] * 4))
def test_any_convolution(case: Any, data: st.DataObject, halo: Sides) -> None:
    op, x, weight = case
    formats, written = data.draw(formats_of(op, weight[0], ["u7", "u8", "s8", "s16"]))
    codes = codes_of(op, x, weight, formats, extreme=data.draw(st.booleans()))
    assert_codes(op, codes, formats, written, halo=halo, output=Layout(True, halo[::-1]))
