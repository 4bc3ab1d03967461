"""Gradients that stand in for that of the sign: against their formulas, and the curves that they are slopes of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from netopt import FileFormatError, InvalidArgument
from netopt.quantization import STE, ApproxSign, Estimator, Identity, SwishSign, sign
from netopt.quantization.signs.estimators import estimator_from

Array = NDArray[np.float64]


def swish_slope(x: Array, beta: float) -> Array:
    return beta * (2 - beta * x * np.tanh(beta * x / 2)) / (1 + np.cosh(beta * x))


# What the docstrings state.
SLOPES: dict[Estimator, Callable[[Array], Array]] = {
    STE(): lambda x: np.where(np.abs(x) <= 1, 1.0, 0.0),
    STE(0.25): lambda x: np.where(np.abs(x) <= 0.25, 1.0, 0.0),
    Identity(): np.ones_like,
    ApproxSign(): lambda x: np.maximum(0, 2 - 2 * np.abs(x)),
    SwishSign(): lambda x: swish_slope(x, 5.0),
    SwishSign(1.5): lambda x: swish_slope(x, 1.5),
}


def swish_curve(x: Array, beta: float) -> Array:
    """2 sigma(beta x) (1 + beta x (1 - sigma(beta x))) - 1: equation 2 of BNN+."""
    sigma = 1 / (1 + np.exp(-beta * x))
    return 2 * sigma * (1 + beta * x * (1 - sigma)) - 1


CURVES: dict[Estimator, Callable[[Array], Array]] = {
    STE(): lambda x: np.clip(x, -1, 1),
    STE(0.25): lambda x: np.clip(x, -0.25, 0.25),
    ApproxSign(): lambda x: np.where(np.abs(x) < 1, 2 * x - np.sign(x) * x**2, np.sign(x)),
    SwishSign(): lambda x: swish_curve(x, 5.0),
    SwishSign(1.5): lambda x: swish_curve(x, 1.5),
}
POINTS = np.concatenate([np.linspace(-3, 3, 59), [-1.0, -0.25, 0.0, 0.25, 1.0]])


@pytest.mark.parametrize("estimator", SLOPES, ids=str)
def test_forward_all_are_the_sign(estimator: Estimator) -> None:
    x = torch.tensor([0.0, -0.0, 2.0, -2.0, 1e-30, -1e-30, math.inf, -math.inf, math.nan])
    assert sign(x, estimator).tolist() == [1, 1, 1, -1, 1, -1, 1, -1, -1]


@pytest.mark.parametrize("estimator", SLOPES, ids=str)
def test_backward_is_the_gradient_times_the_slope(estimator: Estimator) -> None:
    x = torch.from_numpy(POINTS).requires_grad_()
    upstream = torch.randn(len(POINTS), dtype=torch.float64)
    (sign(x, estimator) * upstream).sum().backward()
    # float64: a few roundings of numbers up to 30.
    assert np.allclose(x.grad, upstream.numpy() * SLOPES[estimator](POINTS), rtol=1e-13, atol=1e-14)
    assert np.allclose(estimator.slope(x.detach()), SLOPES[estimator](POINTS), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("estimator", CURVES, ids=str)
def test_the_slope_is_that_of_a_curve_near_the_sign(estimator: Estimator) -> None:
    """By central differences, away from kinks: their error is h^2 f''' / 6 + 2^-52 / h, both below 1e-8."""
    h, smooth = 1e-6, np.linspace(-2.97, 2.97, 60)
    differences = (CURVES[estimator](smooth + h) - CURVES[estimator](smooth - h)) / (2 * h)
    assert np.allclose(estimator.slope(torch.from_numpy(smooth)), differences, rtol=0, atol=1e-8)


def test_the_default_is_the_straight_through_estimator() -> None:
    x = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5], requires_grad=True)
    sign(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_large_inputs_have_finite_slopes() -> None:
    """cosh overflows beyond 89 in float32."""
    x = torch.tensor([-1e4, -50.0, 50.0, 1e4])
    assert SwishSign().slope(x).abs().max() == 0


@pytest.mark.parametrize("estimator", SLOPES, ids=str)
def test_descriptions_are_json(estimator: Estimator) -> None:
    assert estimator_from(json.loads(json.dumps(estimator.describe()))) == estimator


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "estimator: expected one of ste, identity, approx_sign, swish_sign, found None"),
        ("ste", "found 'ste'"),
        ({}, "found {}"),
        ({"name": "eval"}, "found {'name': 'eval'}"),
        ({"name": ["ste"], "clip": 1.0}, "expected one of"),
        ({"name": "ste"}, "expected one of"),
        ({"name": "ste", "clip": 1.0, "more": 1}, "expected one of"),
        ({"name": "identity", "clip": 1.0}, "expected one of"),
        ({"name": "ste", "clip": "1"}, "estimator: found clip of STE: expected a number above 0, found '1'"),
        ({"name": "swish_sign", "beta": -1.0}, "beta of SwishSign: expected a number above 0, found -1.0"),
    ],
)
def test_damaged_descriptions(description: Any, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        estimator_from(description)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1", None])
def test_wrong_numbers(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"^clip of STE: expected a number above 0, found {value!r}$"):
        STE(value)
    with pytest.raises(InvalidArgument, match=f"^beta of SwishSign: expected a number above 0, found {value!r}$"):
        SwishSign(value)
