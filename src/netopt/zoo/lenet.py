"""LeNet-5 as Caffe has it, and LeNet-300-100.

Source: LeCun et al., 1998, "Gradient-based learning applied to document recognition".
"""

from __future__ import annotations

from torch import nn

from netopt.zoo.mlp import mlp
from netopt.zoo.pretrained import with_weights


def lenet5(*, pretrained: bool = False) -> nn.Sequential:
    """LeNet-5 with 20 and 50 feature maps and 500 hidden units; input (batch, 1, 28, 28), 10 classes.

    Args:
        pretrained: with weights trained on MNIST, in eval mode; images as `netopt.datasets.mnist` gives them.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
    return with_weights(model, "lenet5") if pretrained else model


def lenet_300_100() -> nn.Sequential:
    """LeNet-300-100; input (batch, 1, 28, 28), 10 classes."""
    return nn.Sequential(nn.Flatten(), *mlp(784, 300, 100, 10))
