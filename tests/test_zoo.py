"""The reference networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netopt import InvalidArgument
from netopt.zoo import mlp


def test_mlp() -> None:
    model = mlp(8, 6, 4)
    assert [type(layer) for layer in model] == [nn.Linear, nn.ReLU, nn.Linear]
    assert model(torch.randn(3, 8)).shape == (3, 4)
    assert len(mlp(8, 4)) == 1


def test_mlp_of_one_size() -> None:
    with pytest.raises(InvalidArgument, match=r"sizes of an mlp.*found \(8,\)"):
        mlp(8)
