"""EfficientNet-B0 (Tan and Le, 1905.11946)."""

from __future__ import annotations

import torch
from torch import nn


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalization, SiLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class SqueezeAndExcitation(nn.Module):
    """Each channel times a gate between 0 and 1 that all channels decide (Hu et al., 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The gated image."""
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(nn.functional.silu(self.squeeze(means))))


class MobileBlock(nn.Module):
    """Expand, filter each channel, gate, project; with a shortcut where input and output have one shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv(inputs, hidden, 1)]
        layers += [_conv(hidden, hidden, kernel, stride, hidden), SqueezeAndExcitation(hidden, inputs // 4)]
        self.body = nn.Sequential(*layers, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        y: torch.Tensor = self.body(x)
        return x + y if self.has_shortcut else y


# expansion, kernel, outputs, blocks, stride of the first: table 1 of the paper
_STAGES = (
    *((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2)),
    *((6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1)),
)


def efficientnet_b0(classes: int = 1000) -> nn.Sequential:
    """EfficientNet-B0; input (batch, 3, height, width), 224 x 224 in the paper."""
    layers: list[nn.Module] = [_conv(3, 32, 3, 2)]
    inputs = 32
    for expansion, kernel, outputs, blocks, stride in _STAGES:
        for block in range(blocks):
            layers.append(MobileBlock(inputs, outputs, kernel, stride if block == 0 else 1, expansion))
            inputs = outputs
    layers += [_conv(320, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(1280, classes))
