"""MobileNetV2 (Sandler et al., 1801.04381), and a small one for images of 32 x 32."""

from __future__ import annotations

import torch
from torch import nn

from netopt.zoo.pretrained import with_weights


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalization, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with a shortcut where input and output have one shape."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv(inputs, hidden, 1)]
        layers += [_conv(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, outputs, 1, bias=False)]
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(outputs))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        y: torch.Tensor = self.body(x)
        return x + y if self.has_shortcut else y


# expansion, outputs, blocks, stride of the first: table 2 of the paper
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# Of the network for 32 x 32 pixels: an eighth of both sides remains, 4 x 4.
_CIFAR_STAGES = ((1, 16, 1, 1), (3, 24, 2, 2), (4, 40, 3, 2), (4, 64, 2, 1), (4, 96, 3, 2))


def _features(stem: int, stride: int, stages: tuple[tuple[int, int, int, int], ...], head: int) -> list[nn.Module]:
    """All layers before the dense one; `stem` and `head` are outputs of the first and the last convolution."""
    layers: list[nn.Module] = [_conv(3, stem, 3, stride)]
    inputs = stem
    for expansion, outputs, blocks, first_stride in stages:
        for block in range(blocks):
            layers.append(InvertedResidual(inputs, outputs, first_stride if block == 0 else 1, expansion))
            inputs = outputs
    return [*layers, _conv(inputs, head, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def mobilenet_v2(classes: int = 1000) -> nn.Sequential:
    """MobileNetV2 at width 1; input (batch, 3, height, width), 224 x 224 in the paper."""
    return nn.Sequential(*_features(32, 2, _STAGES, 1280), nn.Dropout(0.2), nn.Linear(1280, classes))


def mobilenet_v2_cifar(classes: int = 10, *, pretrained: bool = False) -> nn.Sequential:
    """A small MobileNetV2 for CIFAR-10: thinner, no stride in the first convolution; input (batch, 3, 32, 32).

    Args:
        classes: outputs.
        pretrained: with weights trained on CIFAR-10, in eval mode; images as `netopt.datasets.cifar10` gives them.

    Raises:
        InvalidArgument: the trained weights are for another number of classes.
    """
    model = nn.Sequential(*_features(16, 1, _CIFAR_STAGES, 320), nn.Linear(320, classes))
    return with_weights(model, "mobilenet_v2_cifar", classes) if pretrained else model
