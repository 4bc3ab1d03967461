"""Networks that binary networks are compared by: VGG-small for CIFAR-10, and a dense one for MNIST."""

from __future__ import annotations

import itertools

from torch import nn


def vgg_small(width: int = 128, classes: int = 10) -> nn.Sequential:
    """Six 3 x 3 convolutions of `width`, 2 `width` and 4 `width` channels, two of each; input (batch, 3, 32, 32).

    Pooling, normalization and a hard tanh follow a convolution, so that a sign may take the place of the hard tanh.

    Source: Zhang et al. (LQ-Nets), 1807.10029, section 4; Hubara et al., 1602.02830, have its layers with more outputs.
    """
    layers: list[nn.Module] = []
    inputs, outputs = 3, width
    for _ in range(3):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.Hardtanh()]
        layers += [nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2)]
        layers += [nn.BatchNorm2d(outputs), nn.Hardtanh()]
        inputs, outputs = outputs, 2 * outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * inputs, classes))


def dense_with_norm(*sizes: int) -> nn.Sequential:
    """Dense layers of these sizes, each with batch normalization, and a hard tanh between them; input (batch, ...)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.Hardtanh()]
    return nn.Sequential(*layers[:-1])
