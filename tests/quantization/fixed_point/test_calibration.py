"""Formats of weights by trying every position, and bits by the noise of all tensors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from netopt.errors import InvalidArgument
from netopt.numerics import Affine, FixedPoint, round_scale
from netopt.quantization.fixed_point.calibration import (
    MSE,
    Method,
    MinMax,
    Observer,
    choose_bits,
    choose_signed,
    place_weight,
)
from tests.quantization.fixed_point.placed import METHODS, error, positions, seen


def test_choose_signed() -> None:
    assert not choose_signed(Observer()) and not choose_signed(seen(torch.tensor([0.0, 2.0])))
    assert choose_signed(seen(torch.tensor([0.0, 2.0]), torch.tensor([-1e-3])))


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
