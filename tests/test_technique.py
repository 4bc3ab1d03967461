"""A technique by somebody else, written for the modules of before `netopt.transform`, works as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import netopt
from netopt.technique import inherit


@dataclass(frozen=True, kw_only=True)
class Halve(netopt.Technique):
    """Each dense layer as two, through half of its inputs."""

    handles = (nn.Linear,)

    def replace(self, layer: netopt.Layer) -> nn.Module:
        inner = layer.in_features // 2
        return inherit(
            nn.Sequential(nn.Linear(layer.in_features, inner), nn.Linear(inner, layer.out_features)), layer.module
        )


def test_a_technique_of_one_method() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
    result = netopt.optimize(model, Halve(), keep_if="always")
    assert [type(layer) for layer in result.model[0]] == [nn.Linear, nn.Linear]  # type: ignore[arg-type,index]
    assert result.model(torch.ones(1, 16)).shape == (1, 16)
    assert [row.replaced for row in result.report.rows] == [True]
