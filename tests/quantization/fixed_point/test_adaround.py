"""Learned rounding against rounding to nearest, and against the best of all ways where those can be tried."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import Affine, CodeFormat, FixedPoint, round_scale
from netopt.quantization.fixed_point.adaround import AdaRound, adaround
from netopt.quantization.fixed_point.calibration import place_weight


def dense(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, weight)


def nearest(weight: torch.Tensor, format_: CodeFormat) -> torch.Tensor:
    return format_.decode(format_.encode(weight))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs whose features go together, so that errors of several weights can cancel."""
    torch.manual_seed(0)
    x = (torch.randn(600, 16) @ torch.randn(16, 24)).relu() * 0.2
    return torch.randn(12, 24) * 0.1, x


@pytest.mark.parametrize("kind", ["power", "real"])
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_outputs_change_less_than_with_nearest(bits: int, kind: Any) -> None:
    weight, x = data()
    format_ = place_weight(weight, bits, kind=kind)
    found = adaround(weight, format_, dense, x[:300], options=AdaRound(steps=400))
    steps = torch.tensor(format_.steps)[:, None]
    assert torch.equal(nearest(found, format_), found)
    # Up or down, or where it is beyond the codes, the last one.
    inside = (weight >= -(2 ** (bits - 1)) * steps) & (weight <= (2 ** (bits - 1) - 1) * steps)
    assert bool(((found - weight).abs() < steps)[inside].all())
    assert not torch.equal(found, nearest(weight, format_))
    # On inputs that it has not seen.
    errors = [float((dense(w - weight, x[300:])).square().mean()) for w in (found, nearest(weight, format_))]
    assert errors[0] < 0.75 * errors[1]


def test_it_finds_nearly_the_best_of_all() -> None:
    torch.manual_seed(1)
    weight, x = torch.rand(1, 8), torch.randn(200, 3) @ torch.randn(3, 8)
    format_ = FixedPoint(8, 0)
    floor = weight.floor()
    every = [floor + torch.tensor([up]) for up in itertools.product([0.0, 1.0], repeat=8)]
    losses = sorted(float(dense(w - weight, x).square().mean()) for w in every)
    found = adaround(weight, format_, dense, x, options=AdaRound(steps=600, batch=200))
    # Of 256 ways; rounding to nearest is the 106th.
    assert float(dense(found - weight, x).square().mean()) <= losses[9]
    assert float(dense(nearest(weight, format_) - weight, x).square().mean()) > losses[99]


def test_of_a_convolution_with_its_activation_and_targets() -> None:
    torch.manual_seed(2)
    weight, bias = torch.randn(6, 4, 3, 3) * 0.2, torch.randn(6) * 0.1
    x = F.avg_pool2d(torch.randn(64, 4, 12, 12), 3, 1, 1)
    rounded_x = x + 0.02

    def layer(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, w, bias, padding=1).relu()

    format_ = Affine(3, tuple(round_scale(0.12 + 0.01 * i) for i in range(6)))
    targets = layer(weight, x)
    found = adaround(weight, format_, layer, rounded_x, targets, options=AdaRound(steps=300, batch=16))
    errors = [float((layer(w, rounded_x) - targets).square().mean()) for w in (found, nearest(weight, format_))]
    assert errors[0] < 0.7 * errors[1]


def test_nothing_learned_is_rounding_to_nearest() -> None:
    """Where the steps are too few to gain anything; and the same seed gives the same."""
    weight, x = data()
    format_ = FixedPoint(4, 5)
    assert torch.equal(
        adaround(weight, format_, dense, x, options=AdaRound(steps=1, lr=1e-9)), nearest(weight, format_)
    )
    once = adaround(weight, format_, dense, x, options=AdaRound(steps=50, seed=3))
    assert torch.equal(once, adaround(weight, format_, dense, x, options=AdaRound(steps=50, seed=3)))


def test_what_cannot_be() -> None:
    weight, x = data()
    with pytest.raises(InvalidArgument, match="found 0 inputs"):
        adaround(weight, FixedPoint(4, 5), dense, x[:0])
    with pytest.raises(InvalidArgument, match="600 inputs, 3 targets"):
        adaround(weight, FixedPoint(4, 5), dense, x, x[:3])
    for options in ({"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"pull": -1}, {"seed": None}):
        with pytest.raises(InvalidArgument, match=f"{next(iter(options))} of AdaRound"):
            AdaRound(**options)  # type: ignore[arg-type]
