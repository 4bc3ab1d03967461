"""Where formats are placed: each method against its definition on all numbers, and by trying every position."""

from __future__ import annotations

import math
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
    choose_bits,
    choose_signed,
    place_weight,
)

METHODS: list[Method] = [MinMax(), MinMax(moving=True), Percentile(), Percentile(50.0), MSE(), KL(), SQNR()]


def seen(*batches: torch.Tensor) -> Observer:
    observer = Observer()
    for batch in batches:
        observer.update(batch)
    return observer


def error(x: torch.Tensor, format_: CodeFormat) -> float:
    return (format_.decode(format_.encode(x), torch.float64) - x.double()).square().sum().item()


def positions(bits: int, signed: bool) -> list[FixedPoint]:
    return [FixedPoint(bits, n, signed) for n in range(-30, 60)]


def saturates(x: torch.Tensor, format_: CodeFormat) -> bool:
    """Whether a number has no nearest code, or below 0, none at all."""
    low, high = format_.bounds
    half = format_.steps[0] / 2
    x = x.double()
    return bool(((x >= high + half) | ((x < low - half) & format_.is_signed)).any())


# --- each method


@given(scale=st.integers(-12, 12), bits=st.sampled_from([4, 7, 8, 16]), seed=st.integers(0, 99), shift=st.booleans())
@settings(max_examples=60, deadline=None)
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
    bits=st.sampled_from([2, 4, 7, 8, 16]),
    tail=st.sampled_from([0.0, 1.0, 2.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
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


def test_choose_signed() -> None:
    assert not choose_signed(Observer()) and not choose_signed(seen(torch.tensor([0.0, 2.0])))
    assert choose_signed(seen(torch.tensor([0.0, 2.0]), torch.tensor([-1e-3])))


def test_options_are_checked() -> None:
    with pytest.raises(InvalidArgument, match="percent of Percentile"):
        Percentile(0)
    with pytest.raises(InvalidType, match="moving of MinMax"):
        MinMax(moving=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="kind of steps"):
        MSE().place(seen(torch.ones(3)), 8, True, "no")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="bits of unsigned"):
        MSE().place(seen(torch.ones(3)), 16, False)


# --- weights


def weights() -> torch.Tensor:
    torch.manual_seed(5)
    weight = torch.randn(6, 4, 3, 3) * torch.tensor([1.0, 0.01, 30.0, 0.3, 1e-5, 0.0]).reshape(-1, 1, 1, 1)
    weight[3, 0, 0, 0] = 5.0  # an outlier
    return weight


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_each_channel_has_the_best_position(bits: int) -> None:
    weight = weights()
    found = place_weight(weight, bits)
    assert isinstance(found, FixedPoint) and found.is_by_channel
    for channel, fraction in zip(weight[:5], found.fractions, strict=False):
        best = min(error(channel, format_) for format_ in positions(bits, True))
        assert error(channel, FixedPoint(bits, fraction)) == pytest.approx(best, rel=1e-5)
    assert found.fractions[5] == bits - 1


@pytest.mark.parametrize("bits", [3, 8])
def test_real_scales_of_channels_are_no_worse_than_any_of_a_grid(bits: int) -> None:
    weight = weights()
    found = place_weight(weight, bits, kind="real")
    assert isinstance(found, Affine) and found.zero == 0
    for channel, scale in zip(weight[:5], found.steps, strict=False):
        first = MinMax().place(seen(channel), bits, True, "real").steps[0]
        grid = {round_scale(first * 2.0 ** (-k / 300)) for k in range(1200)}
        best = min(error(channel, Affine(bits, step)) for step in grid)
        # The error jumps from one scale to the next; the search has not all of them.
        assert error(channel, Affine(bits, scale)) <= 1.3 * best


def test_one_step_for_all() -> None:
    weight = weights()
    found = place_weight(weight, 8, by_channel=False)
    assert isinstance(found, FixedPoint) and not found.is_by_channel
    assert error(weight, found) == pytest.approx(min(error(weight, f) for f in positions(8, True)), rel=1e-6)
    assert place_weight(weight, 8, by_channel=False, method=MinMax()) == MinMax().place(seen(weight), 8, True)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("kind", ["power", "real"])
def test_methods_by_channel_are_those_of_each_channel(method: Method, kind: Any) -> None:
    weight = weights()[:4]
    found = place_weight(weight, 8, method=method, kind=kind)
    for channel, step in zip(weight, found.steps, strict=True):
        alone = method.place(seen(channel), 8, True, kind).steps[0]
        # From few numbers in bins the error is known less well than from the numbers.
        assert step == (pytest.approx(alone, rel=0.2) if method == MSE() else alone)


def test_no_step_is_smaller_than_what_is_asked_for() -> None:
    weight = weights()
    least = torch.tensor([1e-9, 0.3, 1e-9, 1e-9, 2.0**-10, 0.011])
    free, found = place_weight(weight, 8).steps, place_weight(weight, 8, least=least).steps
    assert found == (free[0], 0.5, free[2], free[3], 2.0**-10, 2.0**-6)
    assert place_weight(weight, 8, by_channel=False, least=torch.tensor(3.0)) == FixedPoint(8, -2)
    real = place_weight(weight, 8, least=least, kind="real").steps
    assert all(step >= bound for step, bound in zip(real, least.tolist(), strict=True))


def test_weights_that_cannot_be_placed() -> None:
    for bad, message in (
        (torch.zeros(0, 3), "outputs"),
        (torch.tensor(1.0), "outputs"),
        (torch.tensor([math.nan]), "finite"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            place_weight(bad)


# --- bits


def test_bits_by_the_noise_of_all_together() -> None:
    torch.manual_seed(6)
    easy, heavy = torch.rand(50_000), torch.randn(50_000) * torch.randn(50_000).mul(2.5).exp()
    observers = {"a": seen(easy), "b": seen(heavy), "c": seen(easy * 3)}
    alone = {name: o.sqnr(MSE().place(o, 8, choose_signed(o))) for name, o in observers.items()}
    assert alone["b"] < alone["a"] - 6

    def total(bits: dict[str, int]) -> float:
        formats = {n: MSE().place(o, bits[n], bits[n] == 16 or choose_signed(o)) for n, o in observers.items()}
        return -10 * math.log10(sum(10 ** (-observers[n].sqnr(f) / 10) for n, f in formats.items()))

    low = total({"a": 8, "b": 8, "c": 8})
    assert choose_bits(observers, low - 0.1) == {"a": 8, "b": 8, "c": 8}
    chosen = choose_bits(observers, low + 0.1)
    assert chosen == {"a": 8, "b": 16, "c": 8} and total(chosen) >= low + 0.1
    assert set(choose_bits(observers, 400.0).values()) == {16}
    # Where it is much larger than the others, it is the last.
    assert choose_bits(observers, low + 0.1, sizes={"a": 1, "b": 10**9, "c": 1})["a"] == 16
