"""Networks of layers of one bit, for the tests of their passes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from netopt.quantization import SignWeights
from tests.binary_layers import conv, images, trained

SCALED = SignWeights(scaled=True)
X = images(2, 7, 6, 5)


def between(*modules: nn.Module, padding: int = 1) -> nn.Module:
    """Two layers, whose sums are whole numbers, with `modules` between them: 11 channels of images."""
    torch.manual_seed(0)
    return trained(nn.Sequential(conv(7, 11, 3, padding=padding), *modules, conv(11, 6, 3)))


THRESHOLD = ["bits sign", "bits binary_conv2d + threshold", "binary_conv2d"]


def norm(channels: int = 11) -> nn.Module:
    return nn.BatchNorm2d(channels)


def scaled_by_mean(signs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.conv2d(signs, weight) * signs.mean()


def both(signs: torch.Tensor, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    return F.conv2d(signs, one) + F.conv2d(signs, two)
