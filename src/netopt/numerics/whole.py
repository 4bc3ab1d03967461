"""Whole numbers: indices, counts and truth, which nothing rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from netopt.numerics.format import Array, ElementFormat, Shape


@dataclass(frozen=True)
class WholeFormat(ElementFormat):
    """A whole number an element, from `smallest` to `largest`: ops compute on such values as they are.

    Attributes:
        smallest: number that there is.
        largest: number that there is.
    """

    is_whole: ClassVar[bool] = True
    smallest: ClassVar[int]
    largest: ClassVar[int]

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        """floor(x + 1/2), or the nearest that there is; 0 for NaN."""
        if not numbers.is_floating_point():
            wide = numbers.to(torch.int64)
            return wide.clamp(self.smallest, self.largest).to(self.tensor_dtype)
        # In float64, which has all of 32 bits; one half is never added, which would round.
        exact = numbers.double()
        whole = exact.floor()
        whole = torch.where(exact - whole >= 0.5, whole + 1.0, whole).nan_to_num(0.0, np.inf, -np.inf)
        inside = torch.where((whole < self.largest) & (whole > self.smallest), whole, 0.0).to(self.tensor_dtype)
        inside[whole >= self.largest] = self.largest
        inside[whole <= self.smallest] = self.smallest
        return inside

    def numbers(self, tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return tensor

    def sample(self, shape: Shape) -> Array:
        # Zeros are indices of something that is there.
        return np.zeros(shape, self.dtype)
