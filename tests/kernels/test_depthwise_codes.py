"""Depthwise convolutions of codes, exact to the bit."""

from __future__ import annotations

import halide as hl
import pytest

from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.numerics import Affine, FixedPoint
from netopt.ops import CHANNELS_LAST, ROW_MAJOR, Conv2d, Layout, Pointwise
from tests.kernels.codes import assert_exact, fixed, random_codes

AVX2 = Cpu.of(hl.Target("x86-64-linux-avx-avx2-f16c-fma-sse41"))
RELU = Pointwise("relu")


@pytest.mark.parametrize("cpu", [host_cpu(), AVX2], ids=["host", "avx2"])
@pytest.mark.parametrize(
    ("kind", "channels", "kernel", "stride", "activation", "written"),
    [
        ("u8", 32, (3, 3), (1, 1), RELU, "u8"),
        ("u7", 19, (3, 3), (2, 2), Pointwise("hardtanh", (0.0, 6.0)), "u8"),
        ("s8", 5, (5, 1), (1, 2), None, "s8"),
        ("s16", 20, (3, 3), (1, 1), None, "s16"),
    ],
)
def test_codes_are_those_of_the_reference(
    cpu: Cpu,
    kind: str,
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    activation: Pointwise | None,
    written: str,
) -> None:
    x, weight = fixed(kind, 4), FixedPoint(8, tuple(6 + i % 3 for i in range(channels)))
    bias = FixedPoint(16, tuple(10 + i % 3 for i in range(channels)))
    sides = (kernel[0] // 2, kernel[0] // 2, kernel[1] // 2, kernel[1] // 2)
    op = Conv2d(stride, sides, groups=channels, has_bias=True, activation=activation)
    for extreme in (False, True):
        codes = [
            random_codes((2, channels, 7, 9), x, 0, extreme=extreme),
            random_codes((channels, 1, *kernel), weight, 1, extreme=extreme),
            random_codes((channels,), bias, 2),
        ]
        layouts = [Layout(True, sides)]
        found = assert_exact(
            op,
            codes,
            [x, weight, bias],
            fixed(written, 3),
            layouts=layouts,
            output=Layout(True, (1, 0, 0, 1)),
            constants=(1, 2),
            cpu=cpu,
        )
        assert len(found.unique()) > 1


def test_a_residual_and_real_scales() -> None:
    x, weight = Affine(8, 0.0390625, signed=False), Affine(8, tuple(0.01171875 + 0.0009765625 * i for i in range(6)))
    residual, op = Affine(8, 0.05078125), Conv2d((1, 1), (1, 1, 1, 1), groups=6, has_residual=True, activation=RELU)
    shape = (1, 6, 5, 8)
    codes = [
        random_codes(shape, x, 0),
        random_codes((6, 1, 3, 3), weight, 1),
        random_codes(shape, residual, 2),
    ]
    assert_exact(
        op,
        codes,
        [x, weight, residual],
        Affine(8, 0.06640625, signed=False),
        layouts=[Layout(True, (1, 1, 1, 1)), ROW_MAJOR, CHANNELS_LAST],
        output=CHANNELS_LAST,
        constants=(1,),
    )
