"""Inputs with the numbers that are to be found."""

from __future__ import annotations

import pytest
import torch

from netopt import InvalidArgument
from netopt.datasets import RegressionSplit


def test_length_and_first() -> None:
    split = RegressionSplit(torch.arange(12.0).reshape(4, 3), torch.tensor([[3.0], [1.0], [2.0], [0.0]]))
    assert len(split) == 4
    assert split.first(2).inputs.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert split.first(2).targets.tolist() == [[3], [1]]


@pytest.mark.parametrize("targets", [torch.zeros(3, 1), torch.zeros(4), torch.zeros(4, 1, 1), torch.tensor(4.0)])
def test_targets_that_do_not_fit(targets: torch.Tensor) -> None:
    with pytest.raises(InvalidArgument, match=r"inputs and targets: expected .* found \(4, 3\) and "):
        RegressionSplit(torch.zeros(4, 3), targets)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(InvalidArgument, match=r"found \(4,\) and \(4, 1\)"):
        RegressionSplit(torch.zeros(4), torch.zeros(4, 1))
