"""Residual networks (He et al., 1512.03385): ResNet-18 and -50, and the ResNet-23 of nnabla's compression tutorial."""

from __future__ import annotations

import torch
from torch import nn

from netopt.zoo.pretrained import with_weights


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalization."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        return torch.relu(self.body(x) + self.shortcut(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Identity() if inputs == outputs and stride == 1 else _conv(inputs, outputs, 1, stride)


def _basic(inputs: int, width: int, stride: int) -> Residual:
    body = nn.Sequential(_conv(inputs, width, 3, stride), nn.ReLU(), _conv(width, width, 3))
    return Residual(body, _shortcut(inputs, width, stride))


def _bottleneck(inputs: int, width: int, stride: int, outputs: int) -> Residual:
    body = nn.Sequential(
        *(_conv(inputs, width, 1), nn.ReLU()),
        *(_conv(width, width, 3, stride), nn.ReLU()),
        _conv(width, outputs, 1),
    )
    return Residual(body, _shortcut(inputs, outputs, stride))


def _stem() -> list[nn.Module]:
    return [_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]


def resnet18(classes: int = 1000) -> nn.Sequential:
    """ResNet-18; input (batch, 3, height, width), 224 x 224 in the paper."""
    layers, inputs = _stem(), 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_basic(inputs, width, stride), _basic(width, width, 1)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def resnet50(classes: int = 1000) -> nn.Sequential:
    """ResNet-50, with the stride in the 3 x 3 convolutions; input (batch, 3, height, width)."""
    layers, inputs = _stem(), 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(_bottleneck(inputs, width, stride if block == 0 else 1, 4 * width))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, classes))


def resnet23(classes: int = 10, *, pretrained: bool = False) -> nn.Sequential:
    """The network of nnabla's tutorial on model compression; input (batch, 3, 32, 32).

    One 3 x 3 convolution, seven bottleneck units of 64 and 32 channels with 2 x 2 max pooling after units 2, 4 and 6,
    4 x 4 average pooling, one dense layer; no convolution has a bias.

    Args:
        classes: outputs.
        pretrained: with weights trained on CIFAR-10, in eval mode; images as `netopt.datasets.cifar10` gives them.
    """
    layers: list[nn.Module] = [_conv(3, 64, 3), nn.ReLU()]
    for unit in range(1, 8):
        layers.append(_bottleneck(64, 32, 1, 64))
        if unit in (2, 4, 6):
            layers.append(nn.MaxPool2d(2))
    model = nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, classes))
    return with_weights(model, "resnet23", classes) if pretrained else model
