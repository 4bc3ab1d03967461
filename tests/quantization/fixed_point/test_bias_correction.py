"""The mean of outputs before and after."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from netopt.errors import InvalidArgument
from netopt.quantization.fixed_point.bias_correction import bias_correction
from netopt.quantization.fixed_point.calibration import place_weight


def test_the_mean_of_each_channel_is_what_it_was() -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(8, 4, 3, 3), torch.randn(8), torch.rand(40, 4, 7, 7)
    format_ = place_weight(weight, 3)
    rounded = format_.decode(format_.encode(weight))

    def product(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, w, padding=1)

    # Batches of different sizes.
    shift = bias_correction(weight, rounded, product, [x[:7], x[7:8], x[8:]])
    wanted = F.conv2d(x, weight, bias, padding=1).mean((0, 2, 3))
    before = F.conv2d(x, rounded, bias, padding=1).mean((0, 2, 3))
    after = F.conv2d(x, rounded, bias + shift, padding=1).mean((0, 2, 3))
    assert (before - wanted).abs().max() > 0.1
    torch.testing.assert_close(after, wanted, atol=1e-5, rtol=0)
    assert shift.dtype == torch.float32


def test_of_a_dense_layer_on_sequences() -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(5, 6), torch.rand(10, 3, 6)
    rounded = weight.round()
    shift = bias_correction(weight, rounded, lambda w, x: F.linear(x, w), iter([x]), axis=-1)
    expected = (weight.double() - rounded.double()) @ x.double().reshape(-1, 6).mean(0)
    torch.testing.assert_close(shift.double(), expected, atol=1e-6, rtol=1e-5)


def test_without_inputs() -> None:
    with pytest.raises(InvalidArgument, match="inputs of bias correction"):
        bias_correction(torch.ones(2, 2), torch.ones(2, 2), lambda w, x: F.linear(x, w), [])
