"""A network with layers of all kinds, and all low-bit techniques, which tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import netopt
from netopt.quantization import (
    XNOR,
    ApproxSign,
    Binary,
    BinaryBlock,
    BinaryConnect,
    BinaryWeight,
    Identity,
    Residual,
    SwishSign,
    Ternary,
)
from netopt.quantization.signs.techniques import LowBitTechnique

FULL = Binary(thresholds=True, shortcut=True, rprelu=True, pad_one=True)
TECHNIQUES: dict[str, LowBitTechnique] = {
    "Binary": Binary(),
    "Binary, all parts": FULL,
    "Binary, two stages": Binary(two_stages=True, estimator=ApproxSign()),
    "Binary, bare": Binary(normalize=False),
    "XNOR": XNOR(estimator=SwishSign(3.0)),
    "BinaryWeight": BinaryWeight(),
    "BinaryConnect": BinaryConnect(stochastic=True, estimator=Identity()),
    "Ternary": Ternary(),
    "Residual": Residual(weight_terms=3, input_terms=2),
}
X = (2, 3, 8, 8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, stride=2, groups=2, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 6),
        nn.ReLU(),
        nn.Linear(6, 4),
    )


def apply(technique: LowBitTechnique, model: nn.Module | None = None) -> Any:
    return netopt.optimize(network() if model is None else model, technique, keep_if="always")


def inner(module: nn.Module) -> Any:
    return module.layer if isinstance(module, BinaryBlock) else module


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
