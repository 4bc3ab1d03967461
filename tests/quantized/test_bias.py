"""Biases as whole numbers of the step of the sums."""

from __future__ import annotations

import pytest
import torch

from netopt.numerics import Affine, FixedPoint
from netopt.quantized.bias import bias_format, rounded_bias

X = FixedPoint(8, 4, signed=False)


@pytest.mark.parametrize(("most", "bits"), [(0.01, 8), (3.0, 16), (900.0, 24), (30000.0, 32), (2.0e6, None)])
def test_of_the_fewest_bits(most: float, bits: int | None) -> None:
    weight = FixedPoint(8, (7, 8))
    found = bias_format(torch.tensor([most, -most / 3]), X, weight)
    assert found == (None if bits is None else FixedPoint(bits, (11, 12)))


def test_of_real_scales() -> None:
    weight = Affine(8, (0.01171875, 0.0234375))
    found = bias_format(torch.tensor([0.5, -0.25]), X, weight)
    assert found == Affine(24, (0.01171875 / 16, 0.0234375 / 16))


def test_it_is_rounded_as_the_format_rounds_it() -> None:
    torch.manual_seed(0)
    weight, bias = FixedPoint(8, (7, 8, 9)), torch.randn(3)
    format_ = bias_format(bias, X, weight)
    assert format_ is not None
    steps = torch.tensor(format_.steps)
    for dtype in (torch.float32, torch.float64):
        found = rounded_bias(bias.to(dtype), steps.to(dtype))
        assert torch.equal(found, format_.decode(format_.encode(bias), dtype))
    bias.requires_grad_()
    rounded_bias(bias, steps).sum().backward()
    assert bias.grad is not None and torch.equal(bias.grad, torch.ones(3))


def test_what_no_format_has_is_not_rounded() -> None:
    bias = torch.tensor([2.0e6 + 0.3, 0.3])
    assert torch.equal(rounded_bias(bias, torch.tensor([2.0**-11, 2.0**-12])), bias)
