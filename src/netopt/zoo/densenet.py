"""DenseNet-121 (Huang et al., 1608.06993)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


class DenseLayer(nn.Module):
    """Normalize, squeeze by 1 x 1, and compute `growth` further channels by 3 x 3."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The further channels alone."""
        x = self.conv1(self.norm1(x).relu())
        y: torch.Tensor = self.conv2(self.norm2(x).relu())
        return y


class DenseBlock(nn.Module):
    """Each layer reads the block's input and what all layers before it have computed."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inputs + growth * number, growth) for number in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs + growth * layers, height, width)."""
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def _transition(inputs: int) -> nn.Sequential:
    """Half the channels, half the height and half the width."""
    conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv, nn.AvgPool2d(2))


def densenet121(classes: int = 1000) -> nn.Sequential:
    """DenseNet-121; input (batch, 3, height, width), 224 x 224 in the paper."""
    growth, channels = 32, 64
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    stem = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
    parts["stem"] = nn.Sequential(stem, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    for number, layers in enumerate((6, 12, 24, 16), 1):
        if number > 1:
            parts[f"transition{number - 1}"] = _transition(channels)
            channels //= 2
        parts[f"block{number}"] = DenseBlock(channels, growth, layers)
        channels += growth * layers
    parts["head"] = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts["classifier"] = nn.Linear(channels, classes)
    return nn.Sequential(parts)
