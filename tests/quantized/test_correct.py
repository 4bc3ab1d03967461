"""Equalization changes no output; corrected biases and learned rounding bring the rounded network nearer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netopt
from netopt.quantization.fixed_point.techniques import FixedPoint
from netopt.quantized.correct import equalize_layers
from netopt.quantized.network import QuantizedNetwork


def model_of_unlike_channels() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )
    with torch.no_grad():
        scale = torch.logspace(-2, 2, 8)
        model[0].weight.mul_(scale.reshape(-1, 1, 1, 1))
        model[0].bias.mul_(scale)
        model[2].weight.div_(scale.reshape(-1, 1, 1, 1))
    return model.eval(), torch.randn(8, 3, 6, 7)


def error(model: nn.Module, x: torch.Tensor, technique: FixedPoint) -> float:
    network = netopt.quantize(model, technique, calibration=x)
    with torch.no_grad():
        return float((network(x) - model(x)).norm() / model(x).norm())


def test_equalized_layers_compute_the_same() -> None:
    model, x = model_of_unlike_channels()
    network = QuantizedNetwork(model, x)
    before = network(x)
    assert equalize_layers(network) == 2
    assert torch.equal(network(x), before)
    first = network.weight("0.weight").abs().amax((1, 2, 3))
    assert first.max() / first.min() < 64 < model[0].weight.abs().amax((1, 2, 3)).max() * 1e4


def test_equalization_helps_where_channels_share_a_step() -> None:
    model, x = model_of_unlike_channels()
    one_step = FixedPoint(per_channel=False)
    assert error(model, x, FixedPoint(per_channel=False, equalize=True)) < 0.5 * error(model, x, one_step)


@pytest.mark.parametrize("option", ["bias_correction", "adaround"])
def test_coarse_weights_come_nearer(option: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    x = torch.rand(64, 24)
    plain = FixedPoint(weights=3, activations=16, bias_correction=False)
    better = {"bias_correction": FixedPoint(weights=3, activations=16, bias_correction=True)}
    better["adaround"] = FixedPoint(weights=3, activations=16, bias_correction=False, adaround=True)
    assert error(model, x, better[option]) < 0.9 * error(model, x, plain)


def test_the_best_scales_are_told() -> None:
    model, x = model_of_unlike_channels()
    network = netopt.quantize(model, FixedPoint(scales="best"), calibration=x)
    assert network.report is not None and network.report.notes[0].startswith("steps: ")
