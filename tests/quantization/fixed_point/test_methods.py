"""Each method of placing a format against its definition on all numbers, and by trying every position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics import Affine, CodeFormat, FixedPoint, round_scale
from netopt.quantization.fixed_point.calibration import (
    KL,
    MSE,
    SQNR,
    Method,
    MinMax,
    Observer,
    Percentile,
)
from tests.quantization.fixed_point.placed import METHODS, error, positions, seen


def saturates(x: torch.Tensor, format_: CodeFormat) -> bool:
    """Whether a number has no nearest code, or below 0, none at all."""
    low, high = format_.bounds
    half = format_.steps[0] / 2
    x = x.double()
    return bool(((x >= high + half) | ((x < low - half) & format_.is_signed)).any())


# --- each method


@given(scale=st.integers(-12, 12), bits=st.sampled_from([4, 7, 8, 16]), seed=st.integers(0, 99), shift=st.booleans())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_minmax_is_the_finest_that_cuts_nothing_off(scale: int, bits: int, seed: int, shift: bool) -> None:
    torch.manual_seed(seed)
    x = (torch.randn(50) + 2.0 * shift) * 2.0**scale
    signed = bits != 7
    fine = [format_ for format_ in positions(bits, signed) if not saturates(x, format_)]
    assert MinMax().place(seen(x), bits, signed) == fine[-1]
    real = MinMax().place(seen(x), bits, signed, "real")
    assert isinstance(real, Affine) and not saturates(x, real)
    scale_ = real.steps[0]
    below = Affine(bits, round_scale(scale_ * (1 - 2.0**-8)), 0, signed)
    assert below.steps[0] < scale_ and saturates(x, below)


def test_a_number_at_the_last_tie() -> None:
    """127.5 steps round to 128, which is no code; -128.5 steps to -128."""
    assert MinMax().place(seen(torch.tensor([127.5])), 8, True) == FixedPoint(8, -1)
    assert MinMax().place(seen(torch.tensor([127.49])), 8, True) == FixedPoint(8, 0)
    assert MinMax().place(seen(torch.tensor([-128.4])), 8, True) == FixedPoint(8, 0)


def test_minmax_of_moving_averages() -> None:
    observer = Observer(decay=0.9)
    for high in (1.0, 1.0, 100.0):
        observer.update(torch.tensor([0.0, high]))
    # 0.9 x 1 + 0.1 x 100 = 10.9
    assert MinMax(moving=True).place(observer, 8, False) == FixedPoint(8, 4, False)
    assert MinMax().place(observer, 8, False) == FixedPoint(8, 1, False)


@pytest.mark.parametrize("percent", [50.0, 99.0, 99.99, 100.0])
@pytest.mark.parametrize("signed", [True, False])
def test_percentile(percent: float, signed: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(40_000) * 3
    x = x if signed else x.abs()
    limit = torch.quantile(x.abs().double(), percent / 100).item()
    found = Percentile(percent).place(seen(x), 8, signed, "real").steps[0]
    expected = limit / (127.5 if signed else 255.5)
    assert found == pytest.approx(expected, rel=0.015)


@given(
    scale=st.integers(-12, 12),
    bits=st.sampled_from([4, 7, 8, 16]),
    tail=st.sampled_from([0.0, 1.0, 2.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_mse_is_as_good_as_the_best_position(scale: int, bits: int, tail: float, seed: int) -> None:
    """Of many numbers: the error is within 3 % of the least of all positions."""
    torch.manual_seed(seed)
    x = torch.randn(20_000)
    x = x * (tail * torch.randn(20_000)).exp() * 2.0**scale
    signed = bits != 7
    x = x if signed else x.relu()
    best = min(error(x, format_) for format_ in positions(bits, signed))
    found = MSE().place(seen(x), bits, signed)
    assert isinstance(found, FixedPoint) and error(x, found) <= 1.03 * best
    assert error(x, MSE().place(seen(x), bits, signed, "real")) <= 1.03 * best


def test_mse_of_real_scales_is_near_the_optimum() -> None:
    """Normal numbers: Max, 1960, table II, gives 0.335 and an error of 0.01154 for 16 levels."""
    torch.manual_seed(1)
    x = torch.randn(400_000)
    found = MSE().place(seen(x), 4, True, "real")
    assert found.steps[0] == pytest.approx(0.335, rel=0.03)
    assert error(x, found) / 400_000 == pytest.approx(0.0115, rel=0.05)


def test_sqnr_is_the_optimum_for_normal_numbers() -> None:
    """The step of Max for 256 levels is 0.0308; half as fine codes for what ReLU leaves have half the step."""
    torch.manual_seed(2)
    x = torch.randn(400_000)
    assert SQNR().place(seen(x * 5), 8, True, "real").steps[0] == pytest.approx(5 * 0.0308, rel=0.02)
    assert SQNR().place(seen(x), 8, True) == FixedPoint(8, 5)
    assert SQNR().place(seen(x), 4, True, "real").steps[0] == pytest.approx(0.335, rel=0.03)
    relu = SQNR().place(seen(x.relu()), 7, False, "real").steps[0]
    assert relu == pytest.approx(SQNR().place(seen(x), 8, True, "real").steps[0], rel=0.02)


def test_kl_cuts_off_an_outlier() -> None:
    torch.manual_seed(3)
    x = torch.cat([torch.randn(200_000) * 0.2, torch.tensor([7.9])])
    assert MinMax().place(seen(x), 8, True) == FixedPoint(8, 4)
    assert KL().place(seen(x), 8, True) == FixedPoint(8, 7)
    assert KL().place(seen(x), 8, True, "real").bounds[1] < 1.3
    assert KL().place(seen(x), 16, True) == MinMax().place(seen(x), 16, True)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("kind", ["power", "real"])
def test_of_zeros_alone_and_of_one_number(method: Method, kind: Any) -> None:
    for signed in (True, False):
        zeros = method.place(seen(torch.zeros(10)), 8, signed, kind)
        assert zeros.bounds[1] == pytest.approx(1.0, abs=0.01)
        one = method.place(seen(torch.full((10,), 3.0)), 8, signed, kind)
        assert one.decode(one.encode(torch.tensor(3.0))).item() == pytest.approx(3.0, rel=0.03)
    with pytest.raises(InvalidArgument, match="numbers to place a format for"):
        method.place(Observer(), 8, True, kind)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_without_signs_what_is_below_0_is_not_looked_at(method: Method) -> None:
    x = torch.randn(5000, generator=torch.Generator().manual_seed(4))
    placed = method.place(seen(torch.cat([x, torch.tensor([-900.0])])), 8, False)
    assert placed.bounds[1] < (64 if method == SQNR() else 8)


def test_options_are_checked() -> None:
    with pytest.raises(InvalidArgument, match="percent of Percentile"):
        Percentile(0)
    with pytest.raises(InvalidType, match="moving of MinMax"):
        MinMax(moving=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="kind of steps"):
        MSE().place(seen(torch.ones(3)), 8, True, "no")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="bits of unsigned"):
        MSE().place(seen(torch.ones(3)), 16, False)
