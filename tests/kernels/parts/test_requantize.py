"""When sums become codes by shifts alone, what is data then, and what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.integer_product import product_of_codes
from netopt.kernels.parts.requantize import OnCodes, Requantization, without_positions
from netopt.numerics import FLOAT32, Affine, CodeFormat, FixedPoint, NumberFormat
from netopt.ops import Dense, Pointwise
from tests.kernels.codes import fixed
from tests.kernels.harness import problem_of
from tests.kernels.parts.test_product import VNNI

X, W, B = fixed("u8", 5), FixedPoint(8, (7, 8, 9)), FixedPoint(24, (12, 13, 14))
OUT, RESIDUAL = fixed("u8", 4), fixed("u8", 3)


def problem(
    *formats: NumberFormat, written: NumberFormat = OUT, inputs: int = 64, activation: Pointwise | None = None
) -> Problem[Any]:
    """A dense layer of three outputs with all inputs that there are formats for."""
    op = Dense(has_bias=len(formats) > 2, has_residual=len(formats) > 3, activation=activation)
    shapes = [(2, inputs), (3, inputs), (3,), (2, 3)]
    tensors = [torch.zeros(shape) for shape, _ in zip(shapes, formats, strict=False)]
    return problem_of(op, tensors, formats=formats, output_format=written)


def on_codes(of: Problem[Any]) -> OnCodes:
    x, weight = (type_.format for type_ in of.inputs[:2])
    assert isinstance(x, CodeFormat)
    assert isinstance(weight, CodeFormat)
    return OnCodes(of, product_of_codes(x, weight, of.inputs[1].shape[1], 1, VNNI))


def test_shifts_are_between_the_steps_of_sums_and_of_what_is_written() -> None:
    how = Requantization.of(problem(X, W, B, RESIDUAL))
    assert how.by_shift
    assert how.shifts == (8, 9, 10)
    assert how.residual_shifts == (9, 10, 11)
    assert how.largest == 64 * 255 * 128


@pytest.mark.parametrize(
    "other",
    [
        problem(X, W, written=fixed("u8", 13)),  # to the left
        problem(X, W, written=fixed("u8", -19)),  # by 31 bits and more
        problem(X, W, FLOAT32),
        problem(X, W, B, FLOAT32),
        problem(X, W, B, fixed("u8", 13)),  # a residual of smaller steps than the sums
        problem(X, W, B, fixed("u8", -10)),  # one that has too many bits at the step of the sums
        problem(X, W, FixedPoint(32, (12, 13, 14))),
        problem(X, W, inputs=2**16),
        problem(fixed("s16", 5), FixedPoint(16, 7)),
        problem(X, W, written=FLOAT32),
        problem(X, W, written=Affine(8, 0.5)),
        problem(X, Affine(8, 0.5)),
        problem(X, W, activation=Pointwise("silu")),
    ],
)
def test_what_is_not_done_by_shifts(other: Problem[Any]) -> None:
    assert not Requantization.of(other).by_shift
    # Nor when it is made without positions, which shifts of 0 could do.
    assert not Requantization.of(without_positions(other)).by_shift


def test_what_is_packed_beside_the_weights() -> None:
    """Half a unit of what is written, less what an offset of x adds; shifts."""
    weights = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    on = on_codes(problem(fixed("s8", 5), W, B, RESIDUAL, inputs=4))
    assert list(on.parts((4,))) == ["begin", "shift", "residual_shift"]
    begin, shift, residual_shift = on.pack(weights, 1, (4,))
    assert shift.tolist() == [8, 9, 10, 0]
    assert residual_shift.tolist() == [9, 10, 11, 0]
    assert begin.tolist() == [128 + 128 * 18, 256 + 128 * 2, 512 - 128 * 14, 0]


def test_steps_are_packed_where_there_are_no_shifts() -> None:
    """The scale of the output divides, and is a power of two to multiply with where it can be."""
    weight, bias = Affine(8, (0.5, 0.25, 0.75)), Affine(24, (0.0625, 0.03125, 0.09375))
    for written, scale in ((Affine(8, 0.75), 0.75), (FixedPoint(8, 3), 8.0)):
        on = on_codes(problem(Affine(8, 0.125, 7), weight, bias, Affine(8, 0.375), written=written, inputs=4))
        parts = dict(zip(on.parts((3,)), on.pack(np.ones((3, 4), np.int8), 1, (3,)), strict=True))
        assert parts["step"].tolist() == [0.5, 0.25, 0.75]
        assert parts["scales"].tolist() == [0.125, scale, 0.375]
        # A code of 7 is the number 0; VNNI reads signed codes with 128 added.
        assert parts["begin"].tolist() == [-4 * (7 + 128)] * 3


@pytest.mark.parametrize(("bits", "inputs", "expected"), [(24, 64, True), (32, 64, False), (32, 2**17, True)])
def test_sums_begin_with_a_bias_that_they_hold(bits: int, inputs: int, expected: bool) -> None:
    """Those of 2^17 products are in float64, which holds every bias."""
    assert on_codes(problem(X, W, FixedPoint(bits, (12, 13, 14)), inputs=inputs)).begins_with_bias is expected


@pytest.mark.parametrize(
    ("bounds", "expected"), [((-1.5, 3.0), (0, 48)), ((0.03125, 100.0), (1, 255)), ((20.0, 30.0), (255, 255))]
)
def test_bounds_are_codes(bounds: tuple[float, float], expected: tuple[int, int]) -> None:
    """Rounded as numbers are, and codes that there are."""
    on = on_codes(problem(X, W, activation=Pointwise("hardtanh", bounds)))
    assert on.bounds == expected
    assert list(on.parts((3,))) == ["begin", "shift", "bounds"]
