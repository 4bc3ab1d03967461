"""VGG-19 and a small VGG-11 (Simonyan and Zisserman, 1409.1556)."""

from __future__ import annotations

from torch import nn

_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def vgg19(classes: int = 1000, *, batch_norm: bool = False) -> nn.Sequential:
    """VGG-19; input (batch, 3, 224, 224).

    Args:
        classes: outputs.
        batch_norm: put batch normalization after each convolution.
    """
    layers: list[nn.Module] = []
    inputs = 3
    for width, convolutions in _STAGES:
        for _ in range(convolutions):
            layers.append(nn.Conv2d(inputs, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if batch_norm else []
            layers.append(nn.ReLU())
            inputs = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*layers, nn.Flatten(), *head, nn.Linear(4096, classes))


def vgg11_half(classes: int = 10) -> nn.Sequential:
    """VGG-11 for CIFAR-10: half the channels of the paper's, batch normalization, one dense layer.

    Input (batch, 3, 32, 32).
    """
    layers: list[nn.Module] = []
    inputs = 3
    for width, convolutions in ((32, 1), (64, 1), (128, 2), (256, 2), (256, 2)):
        for _ in range(convolutions):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, classes))
