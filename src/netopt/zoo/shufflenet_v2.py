"""ShuffleNetV2 (Ma et al., 1807.11164)."""

from __future__ import annotations

import torch
from torch import nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalization, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def _depthwise(channels: int, stride: int) -> nn.Sequential:
    """A 3 x 3 filter for each channel, then batch normalization."""
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


class ShuffleUnit(nn.Module):
    """Two branches side by side, their channels shuffled: figure 3 (c) and (d) of the paper.

    With stride 1 one branch is a half of the input as it is; with stride 2 both branches filter the whole input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.splits, half = stride == 1, outputs // 2
        self.shortcut = nn.Sequential() if self.splits else nn.Sequential(_depthwise(inputs, 2), _conv(inputs, half, 1))
        taken = half if self.splits else inputs
        self.body = nn.Sequential(_conv(taken, half, 1), _depthwise(half, stride), _conv(half, half, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The unit's output."""
        kept, taken = x.chunk(2, 1) if self.splits else (x, x)
        y = torch.cat([self.shortcut(kept), self.body(taken)], 1)
        batch, channels, height, width = y.shape
        return y.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet_v2(classes: int = 1000) -> nn.Sequential:
    """ShuffleNetV2 at width 1; input (batch, 3, height, width), 224 x 224 in the paper."""
    layers: list[nn.Module] = [_conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 24
    for outputs, units in ((116, 4), (232, 8), (464, 4)):  # table 5
        for unit in range(units):
            layers.append(ShuffleUnit(inputs, outputs, 2 if unit == 0 else 1))
            inputs = outputs
    layers += [_conv(inputs, 1024, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1024, classes))
