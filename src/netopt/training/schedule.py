"""The learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRate:
    """Linear up to `lr`, then a half cosine down to 0.

    Source: Loshchilov and Hutter, 1608.03983.

    Attributes:
        lr: the largest rate.
        steps: of the whole training.
        warmup: share of the steps in which the rate rises.
    """

    lr: float
    steps: int
    warmup: float

    def __call__(self, step: int) -> float:
        """The rate of a step, from 0."""
        rising = self.warmup * self.steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        return self.lr * (1 + math.cos(math.pi * (step - rising) / max(1.0, self.steps - rising))) / 2
