"""Inputs with their labels."""

from __future__ import annotations

import pytest
import torch

from netopt import InvalidArgument
from netopt.datasets import Split


def test_length_and_first() -> None:
    split = Split(torch.arange(12.0).reshape(4, 3), torch.tensor([3, 1, 2, 0]))
    assert len(split) == 4
    assert split.first(2).images.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert split.first(2).labels.tolist() == [3, 1]


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(4, 1), torch.tensor(4)])
def test_labels_that_do_not_fit(labels: torch.Tensor) -> None:
    with pytest.raises(InvalidArgument, match=r"images and labels: expected .* found \(4, 3\) and "):
        Split(torch.zeros(4, 3), labels)
