"""Every kernel that computes, on numbers that are hard: NaN, infinities, the ends of the range, denormals, large means.

What is right is the op's reference in float64, rounded once, to which denormals are zero. Where PyTorch overflows in
float32 on the way, its answer in float32 is right, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from netopt.kernels.machine.denormals import denormals_flushed
from netopt.numerics import SMALLEST_NORMAL, TORCH, flushed
from netopt.ops import (
    CHANNELS_LAST,
    AdaptivePool2d,
    Arithmetic,
    LayerNorm,
    Op,
    Pointwise,
    Pool2d,
    Reduce,
    Softmax,
    SpatialMean,
)
from netopt.ops import arithmetic as arithmetic_op
from netopt.ops import pointwise as pointwise_op
from tests.kernels.harness import run_kernel
from tests.kernels.test_kernels import PARAMETERS, randn
from tests.tolerance import FUNCTION_UNITS, RELATIVE_TO_INPUT, U

LARGEST_DENORMAL = SMALLEST_NORMAL * (1.0 - 2.0**-23)
MAGNITUDES = (
    *(0.0, 1e-45, 1e-40, LARGEST_DENORMAL, SMALLEST_NORMAL, 1e-30, 1e-20, 0.5, 1.0, 2.0, 3.0, 9.9, 10.1, 20.0, 20.5),
    *(44.0, 86.9, 88.0, 89.0, 103.0, 1e4, 1e10, 5e12, 1.8e19, 1e20, 1e25, 3.4e38, math.inf),
)
HARD = torch.tensor([*MAGNITUDES, *(-number for number in MAGNITUDES), math.nan])


def computed(op: Op, *inputs: torch.Tensor) -> torch.Tensor:
    """By the kernel, as a program runs it."""
    with denormals_flushed():
        return run_kernel(op, inputs)


def exact(op: Op, *inputs: torch.Tensor) -> torch.Tensor:
    """In float64, of numbers whose denormals are zero."""
    return op.reference(*(flushed(x, TORCH).double() for x in inputs))


def assert_right(y: torch.Tensor, op: Op, inputs: Sequence[torch.Tensor], bound: torch.Tensor | float) -> None:
    """Within the bound of float64, but for what is denormal; or PyTorch's answer, if not finite; and never denormal."""
    ideal, in_float32 = exact(op, *inputs), op.evaluate(*inputs)
    rounded = ideal.float().double()
    near = (y.double() - rounded).abs() <= bound + 2 * U * ideal.abs() + SMALLEST_NORMAL
    same = (y == rounded) | (y.isnan() & rounded.isnan())
    as_pytorch = ~in_float32.isfinite() & ((y == in_float32) | (y.isnan() & in_float32.isnan()))
    wrong = ~(near | same | as_pytorch)
    assert not wrong.any(), (y[wrong], ideal[wrong], in_float32[wrong])
    assert not ((y != 0) & (y.abs() < SMALLEST_NORMAL)).any()


@pytest.mark.parametrize("function", sorted(pointwise_op.FUNCTIONS))
def test_pointwise(function: str) -> None:
    op = Pointwise(function, PARAMETERS.get(function, ()))
    ideal = exact(op, HARD)
    size = ideal.abs()
    if function in RELATIVE_TO_INPUT:
        size = torch.maximum(size, HARD.abs().double() * (HARD.abs() < 20))
    if function == "power":
        # The exponential of a logarithm, whose error grows with it.
        size = size * (1.0 + size.log().abs().nan_to_num(0.0, 0.0, 0.0))
    # Exponentials below the smallest normal number, and what is multiplied by them, may be zero.
    lost = 2 * SMALLEST_NORMAL * HARD.abs().double().clamp(1.0, 200.0)
    assert_right(computed(op, HARD), op, [HARD], FUNCTION_UNITS * U * size + lost)


@pytest.mark.parametrize("exponent", [1.5, -1.5, 2.5, -2.5, 7.5, -7.5])
def test_powers(exponent: float) -> None:
    op = Pointwise("power", (exponent,))
    assert_right(computed(op, HARD), op, [HARD], FUNCTION_UNITS * U * exact(op, HARD).abs())


@pytest.mark.parametrize("function", sorted(arithmetic_op.OF_NUMBERS))
def test_arithmetic(function: str) -> None:
    """There is one right result, that of IEEE 754; denormals are zero."""
    op, (a, b) = Arithmetic(function), (HARD.repeat_interleave(len(HARD)), HARD.repeat(len(HARD)))
    torch.testing.assert_close(computed(op, a, b), op.evaluate(a, b), rtol=0.0, atol=0.0, equal_nan=True)


def rows(width: int) -> torch.Tensor:
    """Rows (n, width) that a norm, a sum or a softmax may fail on."""
    noise = randn(width)
    last = torch.arange(width) == width - 1
    return torch.stack(
        [
            *(torch.full((width,), number) for number in (0.1, 1000.1, 1e20, 1e-20, -3e-38, 1e-40, 3e37, math.inf)),
            *(noise * scale + mean for mean, scale in ((1e4, 1.0), (1e4, 3e-3), (1e20, 1e14), (-7e-20, 1e-24))),
            *(torch.where(last, number, noise) for number in (1e6, -1e20, math.nan, math.inf, -math.inf)),
            *(torch.where(~last, number, noise) for number in (1e6, -math.inf)),
            torch.where(last, math.inf, torch.where(torch.arange(width) == 0, -math.inf, noise)),
            torch.where(last, 1000.1 + 2.0**-14, torch.tensor(1000.1)),
            noise * 1e-39,
        ]
    )


# Of rows with and without a rest, of one tree and of several, and long enough for sums in float64.
WIDTHS = [5, 64, 197, 1500]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("function", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("axis", [0, 1])
def test_reductions(function: str, axis: int, width: int) -> None:
    """A sum rounds three times to float32, and at the end."""
    x, op = rows(width) if axis else rows(width).T.contiguous(), Reduce(function, axis)
    size = flushed(x, TORCH).double().abs().sum(axis, keepdim=True) / (width if function == "mean" else 1)
    assert_right(computed(op, x), op, [x], 4 * U * size if function in ("sum", "mean") else 0.0)


@pytest.mark.parametrize("value", [0.1, 1000.1, 1e20, -3e-30])
@pytest.mark.parametrize("width", [3, 6, 48, 100, 768, 100_003])
def test_the_mean_of_equal_numbers_is_that_number(width: int, value: float) -> None:
    x = torch.full((2, width), value)
    assert torch.equal(computed(Reduce("mean", 1), x), x[:, :1])
    assert torch.equal(computed(Reduce("mean", 0), x.T.contiguous()), x[:, :1].T)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_softmax(axis: int, log: bool, width: int) -> None:
    x, op = rows(width) if axis else rows(width).T.contiguous(), Softmax(axis, log)
    ideal = exact(op, x)
    # x - max is rounded, which the exponential multiplies.
    spread = (x.amax(axis, keepdim=True) - x).double().abs().clamp(max=200.0).nan_to_num(0.0)
    size = ideal.abs().nan_to_num(0.0, 0.0, 0.0)
    bound = U * (spread + FUNCTION_UNITS + 16) * (1.0 if log else size) + 4 * U * size
    assert_right(computed(op, x), op, [x], bound + 4 * SMALLEST_NORMAL)


@pytest.mark.parametrize("width", [*WIDTHS, 70_000])
def test_layer_norm(width: int) -> None:
    """To a few roundings of the largest, whatever the mean: the row is shifted before its mean is taken."""
    x, weight, bias = rows(width), torch.ones(width), torch.zeros(width)
    op = LayerNorm(1, 1e-5)
    y, ideal = computed(op, x, weight, bias), exact(op, x, weight, bias)
    largest = ideal.abs().amax(1, keepdim=True).nan_to_num(0.0)
    # Squares beyond float32 make an infinite variance, as in PyTorch.
    numbers = flushed(x, TORCH).double()
    kept = ~((numbers - numbers.mean(1, keepdim=True)).square().amax(1) > 1e38)
    assert int(kept.sum()) == len(x) - 1
    error = (y - ideal).abs()[kept]
    assert torch.equal(y.isnan(), ideal.isnan())
    assert (error.nan_to_num(0.0) <= 16 * U * (1.0 + largest[kept])).all(), error.amax(1) / U


@pytest.mark.parametrize("value", [1000.1, 1e20, -1e-20, 3e38])
@pytest.mark.parametrize("width", [1, 7, 64, 100, 768, 5000])
def test_layer_norm_of_equal_numbers_is_the_bias(width: int, value: float) -> None:
    x, weight, bias = torch.full((3, width), value), randn(width), randn(width, seed=1)
    assert torch.equal(computed(LayerNorm(1, 1e-5), x, weight, bias), bias.expand(3, width))


def image() -> torch.Tensor:
    """(1, rows, 14, 14): a channel for each hard row."""
    return rows(196).reshape(1, -1, 14, 14)


POOLS: list[Op] = [
    SpatialMean(),
    *(Pool2d(function, (3, 3), (2, 2), (1, 1, 1, 1)) for function in ("max", "average", "sum")),
    *(Pool2d(function, (9, 11), (3, 3), (2, 2, 2, 2)) for function in ("max", "average", "sum")),
    *(Pool2d(function, (1, 1), (2, 2)) for function in ("max", "average", "sum")),
    *(AdaptivePool2d(function, (2, 3)) for function in ("max", "average")),
    *(AdaptivePool2d(function, (14, 14)) for function in ("max", "average")),
]


@pytest.mark.parametrize("op", POOLS, ids=str)
def test_pools(op: Op) -> None:
    x = image()
    with denormals_flushed():
        y = run_kernel(op, [x], layouts=[CHANNELS_LAST], output=CHANNELS_LAST)
    is_sum = isinstance(op, SpatialMean) or op.function != "max"  # type: ignore[attr-defined]
    size = exact(op, x.abs()).nan_to_num(0.0, 0.0)
    # A window of up to 16 pixels is one chain of additions, and a longer one is summed in trees.
    assert_right(y, op, [x], 18 * U * size if is_sum else 0.0)
