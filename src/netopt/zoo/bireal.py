"""Bi-Real Net (Liu et al., 1808.00278): ResNet-18 with binary convolutions, and a shortcut around each of them."""

from __future__ import annotations

import torch
from torch import nn

from netopt.quantization.signs.estimators import ApproxSign
from netopt.quantization.signs.forms import SignInputs, SignWeights
from netopt.quantization.signs.layers import LowBitConv2d


class BiRealBlock(nn.Module):
    """norm(conv(sign(x))) + shortcut(x), with a binary convolution by 3 x 3.

    Where the block halves the image, the shortcut is an average over 2 x 2 pixels and a convolution by 1 x 1, in float.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv = LowBitConv2d.of(conv, SignWeights(), SignInputs(estimator=ApproxSign()))
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        y: torch.Tensor = self.norm(self.conv(x)) + self.shortcut(x)
        return y


def bireal18(classes: int = 1000) -> nn.Sequential:
    """Bi-Real Net of 18 layers, first and last in float; input (batch, 3, height, width), 224 x 224 in the paper."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BiRealBlock(inputs, width, stride), *(BiRealBlock(width, width, 1) for _ in range(3))]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
