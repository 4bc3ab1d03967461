"""Nnabla's functions, as its sources state them, in NumPy; and the way to have the same here.

docs/coming_from_nnabla.md maps the names. Each test states where both are the same, and where they are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from netopt.numerics import Affine, FixedPoint, round_scale
from netopt.quantization.fixed_point.calibration import MinMax, Observer
from netopt.quantization.fixed_point.powers_of_two import INQ, PowersOfTwo
from netopt.quantization.fixed_point.quantizer import Quantizer

Array = NDArray[np.float64]
D = 0.58496250072115619  # log2(1.5)


def half_away(x: Array) -> Array:
    """C's round."""
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def ours(quantizer: Quantizer, x: Array) -> Array:
    return np.asarray(quantizer(torch.from_numpy(x)).detach().numpy(), np.float64)


def gradient(quantizer: Quantizer, x: Array) -> Array:
    given = torch.from_numpy(x).requires_grad_()
    quantizer(given).sum().backward()
    assert given.grad is not None
    return given.grad.numpy()


def inputs() -> Array:
    """Random numbers, beyond the codes too, and all halves of steps of 1/16 in between."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(0, 4, 4000), np.arange(-640, 640) / 32])


# --- fixed_point_quantize


def fixed_point_quantize(x: Array, sign: bool = True, n: int = 8, delta: float = 2.0**-4) -> Array:
    largest = (2 ** (n - sign) - 1) * delta
    smallest = -largest if sign else 0.0
    return np.clip(np.copysign(np.floor(np.abs(x) / delta + 0.5) * delta, x), smallest, largest)


@pytest.mark.parametrize("n", [2, 4, 8, 16])
@pytest.mark.parametrize("delta", [2.0**-4, 1.0, 2.0**3])
def test_fixed_point_quantize_with_signs(n: int, delta: float) -> None:
    x = inputs() * delta * 16
    theirs, found = (
        fixed_point_quantize(x, True, n, delta),
        ours(Quantizer.of(FixedPoint(n, -int(math.log2(delta)))), x),
    )
    last = (2 ** (n - 1) - 1) * delta
    negative_ties = (x < 0) & (np.abs(x) / delta % 1 == 0.5)
    beyond = x < -last - delta / 2
    same = ~negative_ties & ~beyond
    assert np.array_equal(theirs[same], found[same])
    # Ours rounds halves upward, theirs away from 0.
    ties = negative_ties & (x > -last)
    assert np.array_equal(found[ties], theirs[ties] + delta) and ties.any()
    # Ours has one code more below 0.
    assert np.array_equal(found[beyond], np.full(beyond.sum(), -last - delta)) and (beyond.any() or n == 16)
    assert np.array_equal(theirs[beyond], np.full(beyond.sum(), -last))


@pytest.mark.parametrize("n", [2, 4, 7, 8])
def test_fixed_point_quantize_without_signs(n: int) -> None:
    """The same for all numbers."""
    x = inputs()
    found = ours(Quantizer.of(FixedPoint(n, 4, signed=False)), x)
    assert np.array_equal(fixed_point_quantize(x, False, n, 2.0**-4), found)


def test_fixed_point_quantize_with_any_delta() -> None:
    """Of steps that have 8 significant bits the same; others are rounded to such a step."""
    x = np.random.default_rng(1).normal(0, 0.02, 5000)
    x = x[np.abs(x) < 0.04]
    delta = round_scale(0.00123)
    assert np.array_equal(fixed_point_quantize(x, True, 8, delta), ours(Quantizer.of(Affine(8, delta)), x))
    assert abs(delta / 0.00123 - 1) < 2.0**-8


@pytest.mark.parametrize("sign", [True, False])
def test_gradient_of_fixed_point_quantize(sign: bool) -> None:
    """ste_fine_grained: 1 from min to max. Ours goes on for the half step beyond that rounds to the last code."""
    x = inputs()
    largest = (2 ** (4 - sign) - 1) / 16
    smallest = -largest if sign else 0.0
    theirs = ((x >= smallest) & (x <= largest)).astype(np.float64)
    found = gradient(Quantizer.of(FixedPoint(4, 4, sign)), x)
    edge = (x > largest) & (x < largest + 1 / 32) | (x < smallest) & (x >= smallest - 1 / 16 * sign - 1 / 32)
    assert np.array_equal(found[~edge], theirs[~edge]) and edge.any()
    assert np.array_equal(found[edge], np.ones(edge.sum()))
    coarse = gradient(Quantizer.of(FixedPoint(4, 4, sign), clips=False), x)
    assert np.array_equal(coarse, np.ones(len(x)))


# --- pow2_quantize


def pow2_quantize(x: Array, sign: bool = True, with_zero: bool = True, n: int = 8, m: int = 1) -> Array:
    largest = 2.0**m
    smallest = 2.0 ** (m - (2 ** (n - sign - with_zero) - 1))
    with np.errstate(divide="ignore"):
        q = 2.0 ** half_away(np.log2(np.abs(x)))
    below = np.where(np.abs(x) < smallest * 2**-0.5, 0.0, smallest) if with_zero else smallest
    q = np.where(q > largest, largest, np.where(q < smallest, below, q))
    if sign:
        return np.where(x < 0, -q, q)
    return np.where(x < 0, 0.0 if with_zero else smallest, q)


@pytest.mark.parametrize("sign", [True, False])
@pytest.mark.parametrize("with_zero", [True, False])
@pytest.mark.parametrize("m", [-2, 1])
@pytest.mark.parametrize("numbering", [1, 2, 3])
def test_pow2_quantize(sign: bool, with_zero: bool, m: int, numbering: int) -> None:
    """The same for all numbers, where a format has all powers: nnabla's default of 8 bits has 127 octaves."""
    x, n = inputs(), numbering + sign + with_zero
    quantizer = PowersOfTwo(n, m, signed=sign, with_zero=with_zero)
    assert np.array_equal(pow2_quantize(x, sign, with_zero, n, m), ours(quantizer, x))
    # ste_fine_grained: 1, but not above the largest, and not below 0 without signs.
    with np.errstate(divide="ignore"):
        theirs = (2.0 ** half_away(np.log2(np.abs(x))) <= 2.0**m) & ((x >= 0) | sign)
    assert np.array_equal(gradient(quantizer, x), theirs.astype(np.float64))


# --- min_max_quantize


def min_max_quantize(x: Array, low: float, high: float, ql_min: int = 0, ql_max: int = 255) -> tuple[Array, float, int]:
    """What it gives, its scale, and its nudged zero point."""
    high = max(high, low + 0.01)
    scale = (high - low) / (ql_max - ql_min)
    zero = int(half_away(np.array(np.clip(ql_min - low / scale, ql_min, ql_max))))
    nudged_low, nudged_high = (ql_min - zero) * scale, (ql_max - zero) * scale
    return half_away((np.clip(x, nudged_low, nudged_high) - nudged_low) / scale) * scale + nudged_low, scale, zero


@pytest.mark.parametrize(("low", "high"), [(-2.0, 1.984375), (0.0, 3.984375), (1.0, 4.984375), (-4.0, 0.98046875)])
def test_min_max_quantize(low: float, high: float) -> None:
    """Of scales that have 8 significant bits the same, halves too: there is no number below the first code."""
    x = inputs()
    theirs, scale, zero = min_max_quantize(x, low, high)
    assert scale == round_scale(scale) and (0 < zero < 255 or low >= 0)
    assert np.allclose(ours(Quantizer.of(Affine(8, scale, zero, signed=False)), x), theirs, rtol=0, atol=1e-12)


def test_min_max_quantize_with_any_scale() -> None:
    """The scale is rounded to 8 significant bits: by less than 1/256, so that codes differ by one at most."""
    x = np.random.default_rng(2).uniform(-1, 2, 5000)
    theirs, scale, zero = min_max_quantize(x, -1.0, 2.0)
    found = ours(Quantizer.of(Affine(8, round_scale(scale), zero, signed=False)), x)
    assert abs(round_scale(scale) / scale - 1) < 2.0**-8
    codes = np.round(found / round_scale(scale)) - np.round(theirs / scale)
    assert np.abs(codes).max() <= 1


def test_moving_averages_of_min_max_quantize() -> None:
    """qr = decay qr + (1 - decay) x; ours begins with the first batch, theirs with qr_min_init and qr_max_init."""
    rng = np.random.default_rng(3)
    batches = [rng.normal(k, 1 + k, 100).astype(np.float32) for k in range(5)]
    observer = Observer(decay=0.9)
    observer.update(torch.from_numpy(batches[0]))
    low, high = float(batches[0].min()), float(batches[0].max())
    for batch in batches[1:]:
        observer.update(torch.from_numpy(batch))
        low, high = 0.9 * low + 0.1 * float(batch.min()), 0.9 * high + 0.1 * float(batch.max())
    assert (observer.moving_min, observer.moving_max) == pytest.approx((low, high), rel=1e-12)


def test_the_range_of_min_max_placed_here() -> None:
    """Ours has no zero point, so that codes multiply without corrections: signed codes reach as far on both sides."""
    observer = Observer()
    observer.update(torch.tensor([-1.0, 3.0]))
    placed = MinMax().place(observer, 8, True, "real")
    assert placed.zero == 0 and placed.steps[0] == pytest.approx(3 / 127.5, rel=2.0**-7)


# --- inq_affine, inq_convolution


def inq_levels(weights: Array, num_bits: int) -> tuple[int, int]:
    largest = np.log2(np.abs(weights).max())
    n1 = int(np.floor(largest) + (largest - np.floor(largest) >= D))
    return n1, n1 + 1 - 2 ** (num_bits - 2)


def inq_quantize(weights: Array, n1: int, n2: int) -> Array:
    b = np.log2(np.maximum(np.abs(weights), 1e-30))
    exponent = np.clip(np.floor(b) + (b - np.floor(b) >= D), n2, n1)
    return np.where(np.abs(weights) < 2.0 ** (n2 - 1), 0.0, np.sign(weights) * 2.0**exponent)


def inq(
    weights: Array, change: Callable[[Array], Array], num_bits: int, iterations: tuple[int, ...], steps: int
) -> Any:
    """The weights after each forward pass, with selection_algorithm="largest_abs"; `change` stands for training."""
    weights = weights.copy()
    fixed = np.zeros(weights.shape, bool)
    old, result = weights.copy(), []
    for step in range(steps):
        weights = np.where(fixed, old, weights)
        if step in iterations:
            if step == iterations[-1]:
                fixed[:] = True
            else:
                left = int((~fixed).sum())
                order = np.argsort(-np.abs(weights), kind="stable")
                fixed[[i for i in order if not fixed[i]][: max(1, left // 2)]] = True
        weights = np.where(fixed, inq_quantize(weights, *inq_levels(weights, num_bits)), weights)
        old = weights.copy()
        result.append(weights.copy())
        weights = change(weights)
    return result


@pytest.mark.parametrize("num_bits", [2, 3, 4, 5])
def test_inq(num_bits: int) -> None:
    """The same weights at every step, as long as the range stays: theirs is that of the weights as they are by now."""
    rng = np.random.default_rng(4)
    weights = rng.normal(0, 0.1, 301)
    weights[7] = 0.5  # a power of two: it stays the largest when it is fixed

    def change(w: Array) -> Array:
        return w * 0.97 + 0.001

    theirs = inq(weights, change, num_bits, (1, 2, 5), 7)
    quantizer = INQ(torch.from_numpy(weights), num_bits, iterations=(1, 2, 5))
    w = weights
    for step in range(7):
        w = ours(quantizer, w)
        assert np.allclose(w, theirs[step], rtol=1e-12, atol=0)
        w = change(w)
    assert quantizer.is_done and (quantizer.largest, quantizer.smallest) == inq_levels(weights, num_bits)


# --- prune


def prune(x: Array, rate: float) -> Array:
    threshold = np.sort(np.abs(x))[int((len(x) - 1) * rate)] + (1.0 if rate == 1.0 else 0.0)
    return np.where(np.abs(x) < threshold, 0.0, x)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9, 0.99])
def test_prune(rate: float) -> None:
    """PyTorch's, told the number: the same weights are left. What is pruned has no gradient, with theirs it has."""
    weight = np.random.default_rng(5).normal(0, 1, 501)
    layer = torch.nn.Linear(501, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    weight = layer.weight.detach().double().numpy()[0]
    torch.nn.utils.prune.l1_unstructured(layer, "weight", int((len(weight) - 1) * rate))
    assert np.array_equal(layer.weight.detach().double().numpy()[0], prune(weight, rate))
    layer.weight.sum().backward()
    pruned = layer.get_parameter("weight_orig")
    assert pruned.grad is not None
    assert np.array_equal(pruned.grad.numpy()[0] == 0, prune(weight, rate) == 0)


def test_prune_at_the_rate_of_all() -> None:
    weight = np.random.default_rng(6).normal(0, 1, 501)
    assert not prune(weight, 1.0).any()
    # Below it the largest is left, whatever the rate.
    assert np.count_nonzero(prune(weight, 0.999)) == 2
