"""Signs of sequences, whose layers are convolutions of images."""

from __future__ import annotations

import torch
from torch import nn

from tests.binary_layers import assert_computes, conv1d, images, labels, trained


def test_sequences() -> None:
    torch.manual_seed(0)
    layers = (conv1d(5, 40, 3, padding=1), nn.BatchNorm1d(40), nn.ReLU(), conv1d(40, 7, 3, stride=2))
    graph = assert_computes(trained(nn.Sequential(*layers)), images(2, 5, 12), exact=True)
    assert labels(graph) == ["bits sign", "binary_conv2d + relu", "bits sign", "binary_conv2d"]
