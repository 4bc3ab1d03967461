"""Weights that techniques refuse, each of them alike."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import netopt
from netopt import InvalidArgument, Technique
from netopt.factorization import CP, EVBMF, SVD, Budget, ChannelSVD, DepthwiseSVD, Energy, SpatialSVD, Tucker
from netopt.quantization import XNOR, Binary, BinaryConnect, BinaryWeight, Residual, Ternary
from netopt.transform.finite import finite_weight

LOW_BIT = (
    XNOR(),
    XNOR(two_stages=True),
    Binary(),
    BinaryWeight(),
    BinaryConnect(),
    Ternary(),
    Residual(input_terms=2),
)
CONVOLUTION = (CP, ChannelSVD, DepthwiseSVD, SpatialSVD, Tucker)
RULES = (1, 0.5, Energy(0.9), EVBMF(), Budget(parameters=0.8), lambda weight: 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_copied_in_float32_or_better(dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 2).to(dtype)
    weight = finite_weight(layer, "fc")
    assert weight.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    assert torch.equal(weight, layer.weight.to(weight.dtype))
    weight.zero_()
    assert layer.weight.abs().sum() > 0


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_counted(poison: float) -> None:
    layer = nn.Conv2d(2, 2, 3)
    layer.weight.data[1, 0, 2, 1:] = poison
    with pytest.raises(InvalidArgument) as caught:
        finite_weight(layer, "conv")
    assert str(caught.value) == (
        "layer 'conv': weight: expected finite numbers, found NaN or infinity in 2 of 36; "
        "give trained weights that are finite, or leave the layer out with select=..."
    )


def test_weights_without_values() -> None:
    with pytest.raises(InvalidArgument, match="layer 'conv': weight: expected values, found a tensor on the meta"):
        finite_weight(nn.Linear(3, 2, device="meta"), "conv")


@pytest.mark.parametrize(
    "technique",
    [
        *LOW_BIT,
        *(kind(rank=rule) for kind in CONVOLUTION for rule in RULES),
        *(SVD(rank=rule) for rule in RULES),
    ],
    ids=lambda technique: f"{technique.name} {str(getattr(technique, 'rank', '')).partition(' at ')[0]}",
)
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_all_techniques_refuse_them_and_name_the_layer(technique: Technique, poison: float) -> None:
    wrong = nn.Linear(8, 8) if isinstance(technique, SVD) else nn.Conv2d(8, 8, 3)
    with torch.no_grad():
        wrong.weight.flatten()[7] = poison
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(wrong), nn.Linear(8, 2))
    with pytest.raises(InvalidArgument, match=r"^layer '1\.0': weight: expected finite numbers, found NaN or inf"):
        netopt.optimize(model, replace(technique, select="1.0"), keep_if="always")


def test_a_weight_that_a_parametrization_makes_infinite() -> None:
    wrong = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3))
    wrong.parametrizations.weight.original0.data[3] = math.inf
    model = nn.Sequential(nn.Conv2d(3, 8, 3), wrong, nn.Linear(8, 2))
    for technique in (Tucker(rank=2), XNOR()):
        with pytest.raises(InvalidArgument, match="layer '1': weight: expected finite numbers"):
            netopt.optimize(model, technique, keep_if="always")


def test_layers_that_are_left_out_may_have_them() -> None:
    """Also biases, which stay what they are: -inf leaves a class out."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 2))
    model[0].weight.data[:] = math.nan
    model[2].bias.data[0] = -math.inf
    for technique in (Tucker(rank=2, select=["1", "2"]), XNOR()):
        report = netopt.optimize(model, technique, keep_if="always").report
        assert [row.layer for row in report.rows if row.replaced] == ["1", "2"]
