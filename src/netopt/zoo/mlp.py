"""Multi-layer perceptrons."""

from __future__ import annotations

import itertools

from torch import nn

from netopt.errors import InvalidArgument


def mlp(*sizes: int) -> nn.Sequential:
    """Dense layers of these sizes, inputs first, with ReLU between them: `mlp(784, 1024, 1024, 10)`.

    Raises:
        InvalidArgument: fewer than two sizes.
    """
    if len(sizes) < 2:
        raise InvalidArgument("sizes of an mlp", expected="inputs, any hidden layers, and outputs", found=sizes)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
