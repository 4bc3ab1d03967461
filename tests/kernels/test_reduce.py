"""Reductions over any neighbouring axes, of rows and across them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.ops import Reduce
from netopt.ops.reduce import FUNCTIONS
from tests.kernels.harness import run_kernel
from tests.kernels.test_kernels import assert_matches, randn


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.data())
def test_any_axes(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    axis = data.draw(st.integers(0, len(shape) - 1))
    op = Reduce(data.draw(st.sampled_from(sorted(FUNCTIONS))), axis, data.draw(st.integers(1, len(shape) - axis)))
    assert_matches(op, [randn(*shape) + 1.0])


@pytest.mark.parametrize("function", ["max", "min"])
@pytest.mark.parametrize("axis", [0, 1])
def test_extremes_are_exact_and_nan_wins(function: str, axis: int) -> None:
    x = randn(37, 37)
    x[3, 5] = x[36, 36] = x[20, 0] = math.nan
    x[7], x[8, 9] = -math.inf, math.inf
    y, expected = run_kernel(Reduce(function, axis), [x]), Reduce(function, axis).reference(x)
    torch.testing.assert_close(y, expected, rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("size", [1_000_000, 16 * 64 * 3, 16 * 64 * 2 + 16 * 5 + 3])
def test_a_long_sum_loses_little(size: int) -> None:
    """Of tenths, one number after the other loses 1e-2 of a million of them; in blocks there are 64 + size / 256."""
    x = torch.full((2, size), 0.1)
    exact = x.double().sum(1)
    bound = (64 + size / (64 * 4) + 4) * 2.0**-24 * exact
    assert ((run_kernel(Reduce("sum", 1), [x])[:, 0].double() - exact).abs() <= bound).all()


def test_several_threads() -> None:
    for op in (Reduce("sum", 1), Reduce("mean", 1), Reduce("max", 2)):
        x = randn(40, 30, 70)
        assert torch.equal(run_kernel(op, [x], threads=2), run_kernel(op, [x]))
