"""A small network for a regression: no softmax hides the error of its output."""

from __future__ import annotations

from torch import nn

from netopt.zoo.mlp import mlp
from netopt.zoo.pretrained import with_weights


def friedman_net(*, pretrained: bool = False) -> nn.Sequential:
    """Dense layers of 64, 64 and 1 with ReLU between them, for `netopt.datasets.friedman`; input (batch, 10).

    Inputs are from 0 to 1 and the output is y, both as the data set has them. The training took both at mean 0 and
    deviation 1; that is folded into the first and the last layer, so that nobody needs to normalize.

    Args:
        pretrained: with trained weights, in eval mode.
    """
    model = mlp(10, 64, 64, 1)
    return with_weights(model, "friedman_net") if pretrained else model
