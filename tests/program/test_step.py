"""Steps: what a program says of itself without running."""

from __future__ import annotations

import torch
from torch import nn

import netopt
from netopt.ops import TensorType
from netopt.program.step import shape_text


def test_bytes_and_kinds_of_steps() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(20, 30)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).reshape(2, 3, 10).softmax(-1)

    dense, view, softmax = netopt.lower(Head(), torch.randn(2, 20)).steps
    assert (dense.layer, dense.runs, dense.multiply_adds, dense.constants) == ("body", True, 1200, (1, 2))
    assert (dense.constant_bytes, dense.activation_bytes) == (4 * (600 + 30), 4 * (40 + 60))
    assert dense.how == str(dense.schedule)
    assert (view.runs, view.how, view.schedule) == (False, "a view, no code", None)
    assert (softmax.runs, softmax.constant_bytes, softmax.activation_bytes) == (True, 0, 480)


def test_parts_in_pytorch() -> None:
    class Ranked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.logcumsumexp(1)

    (step,) = netopt.lower(Ranked(), torch.randn(2, 4), fallback=True).steps
    assert (step.runs, step.how, step.schedule) == (True, "runs in PyTorch", None)


def test_shapes_as_text() -> None:
    assert shape_text(TensorType((1, 64, 56, 56))) == "1x64x56x56"
    assert shape_text(TensorType(())) == "scalar"
