"""The digits that scikit-learn ships."""

from __future__ import annotations

import sys

import pytest
import torch

from netopt import NetoptError
from netopt.datasets import digits


def test_digits() -> None:
    train, test = digits()
    assert (train.images.shape, test.images.shape) == ((1257, 64), (540, 64))
    assert (train.images.dtype, train.labels.dtype) == (torch.float32, torch.int64)
    assert (float(train.images.min()), float(train.images.max())) == (0.0, 1.0)
    # In proportion: each digit has between 174 and 183 of the 1,797 images.
    assert torch.bincount(test.labels).tolist() == [54, 55, 53, 55, 54, 55, 54, 54, 52, 54]
    assert torch.equal(digits()[0].images, train.images)
    assert not torch.equal(digits(seed=1)[0].images, train.images)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(NetoptError, match=r"scikit-learn is not installed; pip install 'netopt\[demo\]'"):
        digits()
