"""Accuracy and its interval."""

from __future__ import annotations

import pytest

from netopt import InvalidArgument
from netopt.report import Accuracy


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe, 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_as_published(correct: int, total: int, low: float, high: float) -> None:
    assert Accuracy(correct, total).interval() == pytest.approx((low, high), abs=5e-5)


def test_interval_holds_the_share_and_mirrors() -> None:
    low, high = Accuracy(7, 50).interval()
    assert low < 0.14 < high
    assert Accuracy(43, 50).interval() == pytest.approx((1 - high, 1 - low))


def test_text() -> None:
    assert str(Accuracy(81, 263)) == "30.8 % (25.5 to 36.6)"


@pytest.mark.parametrize(("correct", "total"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_counts(correct: int, total: int) -> None:
    with pytest.raises(InvalidArgument, match="accuracy: expected 0 <= correct <= total"):
        Accuracy(correct, total)
