"""Accuracy with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

from netopt.errors import InvalidArgument

_Z95 = 1.959963984540054  # the standard normal's 97.5 % quantile


@dataclass(frozen=True)
class Accuracy:
    """`correct` right answers out of `total`."""

    correct: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.total or self.total == 0:
            raise InvalidArgument(
                "accuracy", expected="0 <= correct <= total, total >= 1", found=f"{self.correct} of {self.total}"
            )

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.correct / self.total

    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval, as shares.

        Source: Wilson, 1927, "Probable inference, the law of succession, and statistical inference"; unlike the normal
        approximation it holds near 0 and 1.
        """
        spread = _Z95**2 / self.total
        centre = (self.share + spread / 2) / (1 + spread)
        half = math.sqrt(self.share * (1 - self.share) * spread + spread**2 / 4) / (1 + spread)
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{100 * self.share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
