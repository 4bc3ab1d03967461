"""The functions of kernels/parts/math.py against float64, over the whole range where they vary, and NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import halide as hl
import pytest
import torch

from netopt.kernels.machine.buffers import aligned_array
from netopt.kernels.machine.kernel import fix_output, whole_input
from netopt.kernels.parts import math as kernel_math

# name, expression, float64 reference, range, and the largest relative error in units of 2^-24, measured and rounded up.
FUNCTIONS: list[
    tuple[str, Callable[[hl.Expr], hl.Expr], Callable[[torch.Tensor], torch.Tensor], float, float, float]
] = [
    ("log", kernel_math.log, torch.log, 1e-30, 80.0, 4.0),
    ("exp", kernel_math.exp, torch.exp, -80.0, 80.0, 6.0),
    ("erf", kernel_math.erf, torch.erf, -6.0, 6.0, 8.0),
    ("tanh", kernel_math.tanh, torch.tanh, -20.0, 20.0, 4.0),
    ("expm1", kernel_math.expm1_of_negative, torch.expm1, -20.0, 0.0, 6.0),
    ("log1p", kernel_math.log1p_of_unit, torch.log1p, 0.0, 1.0, 4.0),
    ("sigmoid", kernel_math.sigmoid, torch.sigmoid, -80.0, 80.0, 6.0),
]


def evaluate(function: Callable[[hl.Expr], hl.Expr], x: torch.Tensor) -> torch.Tensor:
    """function(x) in vectors, as the kernels compute it."""
    source, i, out = whole_input("source", tuple(x.shape)), hl.Var("i"), hl.Func("out")
    out[i] = function(source[i])
    out.vectorize(i, 8, hl.TailStrategy.GuardWithIf)
    fix_output(out, tuple(x.shape))
    given, result = aligned_array(tuple(x.shape)), aligned_array(tuple(x.shape))
    given[...] = x.numpy()
    out.compile_to_callable([source.param], hl.get_host_target())(hl.Buffer(given), hl.Buffer(result))
    return torch.from_numpy(result)


def grid(low: float, high: float) -> torch.Tensor:
    """Numbers over the whole range, and ever closer to zero where that is in it."""
    even = torch.linspace(low, high, 200_001)
    near_zero = torch.logspace(-30, 0, 10_001)
    return torch.cat(
        [even, *(part for part in (near_zero, -near_zero) if low <= part.sign()[0].item() * 1e-30 <= high)]
    )


@pytest.mark.parametrize(
    ("name", "function", "reference", "low", "high", "units"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS]
)
def test_relative_error(
    name: str,
    function: Callable[[hl.Expr], hl.Expr],
    reference: Callable[[torch.Tensor], torch.Tensor],
    low: float,
    high: float,
    units: float,
) -> None:
    x = grid(low, high).clamp(low, high)
    exact = reference(x.double())
    error = (evaluate(function, x).double() - exact).abs()
    assert (error / (exact.abs() * 2.0**-24 + 1e-40)).max().item() <= units, name


@pytest.mark.parametrize("function", [row[1] for row in FUNCTIONS], ids=[f[0] for f in FUNCTIONS])
def test_nan_stays_nan(function: Callable[[hl.Expr], hl.Expr]) -> None:
    x = torch.full((19,), 0.5)
    x[[0, 7, 9, 18]] = math.nan
    assert torch.equal(evaluate(function, x).isnan(), x.isnan())


def test_clamp_keeps_nan_and_bounds() -> None:
    x = torch.tensor([math.nan, -math.inf, -2.0, -1.0, 0.5, 1.0, 3.0, math.inf, math.nan])
    result = evaluate(lambda v: kernel_math.clamp(v, -1.0, 1.0), x)
    assert torch.equal(result[1:-1], torch.tensor([-1.0, -1.0, -1.0, 0.5, 1.0, 1.0, 1.0]))
    assert result[[0, -1]].isnan().all()


def test_log_of_numbers_below_the_smallest_normal_one_and_the_largest() -> None:
    x = torch.tensor([1e-45, 1e-42, 1e-39, 1.2e-38, 3.4e38, 1e20, 1.0])
    torch.testing.assert_close(evaluate(kernel_math.log, x).double(), x.double().log(), rtol=2.0**-22, atol=0.0)


def test_exp_near_the_ends_of_its_range() -> None:
    x = torch.tensor([-math.inf, -104.0, -86.9, 88.0, 88.7, 89.0, 1e30, math.inf])
    torch.testing.assert_close(evaluate(kernel_math.exp, x), x.exp(), rtol=2.0**-20, atol=1e-37)


def test_tanh_and_sigmoid_saturate() -> None:
    x = torch.tensor([-math.inf, -1e30, -100.0, 100.0, 1e30, math.inf])
    assert torch.equal(evaluate(kernel_math.tanh, x), torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]))
    assert torch.allclose(evaluate(kernel_math.sigmoid, x), torch.sigmoid(x), rtol=0, atol=1e-37)
