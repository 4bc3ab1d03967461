"""Dense layers of codes: the kernel's codes are those of the reference in float64, rounded once, to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.registry import KERNELS
from netopt.numerics import FLOAT32, Affine, CodeFormat, FixedPoint, NumberFormat, round_scale
from netopt.ops import Dense, Pointwise
from tests.kernels.binary import cpu_of, each_cpu
from tests.kernels.codes import assert_exact, bias_format, fixed, random_codes, weight_format
from tests.kernels.harness import assert_packing_is_undone, problem_of
from tests.kernels.images import quick

RELU, HARDTANH = Pointwise("relu"), Pointwise("hardtanh", (-1.5, 3.0))
KINDS = ["u7", "u8", "s8", "s16"]
few = settings(quick, max_examples=8)


def shapes_of(op: Dense, rows: int, inputs: int, outputs: int) -> list[tuple[int, ...]]:
    """Of x, the weight, and the bias and the residual that the op has."""
    shapes: list[tuple[int, ...]] = [(rows, inputs), (outputs, inputs)]
    return [*shapes, *[(outputs,)] * op.has_bias, *[(rows, outputs)] * op.has_residual]


def check(
    op: Dense,
    size: tuple[int, int, int],
    formats: Sequence[CodeFormat],
    written: NumberFormat,
    *,
    extreme: bool = False,
    **options: Any,
) -> torch.Tensor:
    """The kernel's result for random codes, which must be exact."""
    codes = [
        random_codes(shape, format_, seed, extreme=extreme)
        for seed, (shape, format_) in enumerate(zip(shapes_of(op, *size), formats, strict=True))
    ]
    return assert_exact(op, codes, formats, written, constants=range(1, 2 + op.has_bias), **options)


@st.composite
def layers(draw: st.DrawFn) -> tuple[Dense, tuple[int, int, int], list[CodeFormat], CodeFormat]:
    """An op, rows, inputs and outputs, formats of all inputs and of the output: of a step near that of sums, or far."""
    booleans = st.booleans()
    activation = draw(st.sampled_from([None, RELU, HARDTANH]))
    op = Dense(has_bias=draw(booleans), has_residual=draw(booleans), activation=activation)
    size = draw(st.integers(1, 20)), draw(st.integers(1, 70)), draw(st.integers(1, 70))
    x, weight = fixed(draw(st.sampled_from(KINDS)), draw(st.integers(-8, 40))), weight_format(draw, size[2])
    spread = draw(st.sampled_from([st.integers(4, 12), st.integers(-6, 30)]))
    place = x.fractions[0] + min(weight.fractions) - draw(spread)
    formats: list[CodeFormat] = [x, weight]
    if op.has_bias:
        formats.append(bias_format(x, weight, draw(st.sampled_from([24, 32]))))
    if op.has_residual:
        formats.append(fixed(draw(st.sampled_from(KINDS)), place + draw(st.integers(-3, 3))))
    return op, size, formats, fixed(draw(st.sampled_from(KINDS)), place)


@quick
@given(layer=layers(), extreme=st.booleans())
def test_any_layer(layer: Any, extreme: bool) -> None:
    op, size, formats, written = layer
    check(op, size, formats, written, extreme=extreme)


@each_cpu
@few
@given(layer=layers(), extreme=st.booleans())
def test_any_layer_on_other_cpus(name: str, layer: Any, extreme: bool) -> None:
    op, size, formats, written = layer
    check(op, size, formats, written, extreme=extreme, cpu=cpu_of(name))


@each_cpu
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("x", "bits"), [("u7", 8), ("u8", 8), ("s8", 7), ("s16", 8), ("s16", 16), ("u8", 16)])
def test_each_product(name: str, rows: int, x: str, bits: int) -> None:
    """Long sums: pairs, fours, blocks and float64, with codes that make them the largest."""
    source, weight = fixed(x, 4), FixedPoint(bits, 6)
    formats = [source, weight, bias_format(source, weight)]
    for extreme in (False, True):
        options: dict[str, Any] = {"extreme": extreme, "cpu": cpu_of(name)}
        check(Dense(has_bias=True), (rows, 1536, 33), formats, fixed("s16", -4 if bits < 16 else -12), **options)


@each_cpu
@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("x", ["u7", "s8"])
def test_each_schedule(name: str, rows: int, x: str) -> None:
    op, cpu, formats = Dense(), cpu_of(name), [fixed(x, 4), FixedPoint(8, 6)]
    tensors = [torch.zeros(shape) for shape in shapes_of(op, rows, 30, 150)]
    problem = problem_of(op, tensors, formats=formats, output_format=fixed("s8", 1))
    for schedule in KERNELS[Dense].schedules(problem, cpu)[::6]:
        check(op, (rows, 30, 150), formats, fixed("s8", 1), cpu=cpu, schedule=schedule)


@each_cpu
@few
@given(data=st.data(), rows=st.integers(1, 7), inputs=st.integers(1, 40), outputs=st.integers(1, 40))
def test_affine_codes(name: str, data: st.DataObject, rows: int, inputs: int, outputs: int) -> None:
    """Real scales, and codes of which 0 is not that of the number 0."""
    op, scales = Dense(has_bias=True, has_residual=True), st.floats(0.001, 2.0).map(round_scale)
    zeros = data.draw(st.tuples(*[st.integers(0, 255)] * 3))
    x, weight = Affine(8, data.draw(scales), zeros[0], signed=False), Affine(8, data.draw(scales))
    bias, residual = Affine(24, x.steps[0] * weight.steps[0]), Affine(8, data.draw(scales), zeros[1], signed=False)
    written = Affine(8, data.draw(scales), zeros[2] - 128)
    check(op, (rows, inputs, outputs), [x, weight, bias, residual], written, cpu=cpu_of(name))


@pytest.mark.parametrize("activation", [None, RELU])
def test_floats_of_codes(activation: Pointwise | None) -> None:
    """Of the last layer: sums of 20 bits, which are exact in float32."""
    formats = [fixed("u8", 4), FixedPoint(8, tuple(range(10))), FixedPoint(16, tuple(range(4, 14)))]
    op = dataclasses.replace(Dense(has_bias=True), activation=activation)
    check(op, (2, 32, 10), formats, FLOAT32)


def test_a_hundred_in_codes_of_sixteenths_is_the_largest() -> None:
    """100.0 in Q3.4, of 7.9375 at most, is code 127, and -100.0 is -128."""
    formats = [FixedPoint(8, 0), FixedPoint(8, 0)]
    for sign, expected in ((1, 127), (-1, -128)):
        codes = [torch.tensor([[100]], dtype=torch.int8), torch.tensor([[sign]], dtype=torch.int8)]
        assert assert_exact(Dense(), codes, formats, FixedPoint(8, 4), constants=[1]).item() == expected


def test_two_threads() -> None:
    check(Dense(), (40, 256, 300), [fixed("s8", 4), FixedPoint(8, 6)], fixed("s8", -1), threads=2)


def test_packing_is_undone() -> None:
    formats = [fixed("s8", 4), FixedPoint(8, tuple(range(45))), FixedPoint(24, tuple(range(4, 49)))]
    codes = [random_codes(s, f, 0) for s, f in zip([(3, 70), (45, 70), (45,)], formats, strict=True)]
    problem = problem_of(Dense(has_bias=True), codes, formats=formats, output_format=fixed("s8", 2))
    for name in ("host", "AVX2"):
        cpu = cpu_of(name)
        for schedule in KERNELS[Dense].schedules(problem, cpu)[:4]:
            assert_packing_is_undone(problem, schedule, codes, cpu=cpu)
