"""Whole numbers of 32 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from netopt.numerics.format import ElementFormat
from netopt.numerics.operations import TORCH, to_integer


@dataclass(frozen=True)
class Int32(ElementFormat):
    """Two's complement, 32 bits: accumulators and biases of integer ops. Kernels read and write them as they are."""

    name: ClassVar[str] = "int32"

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.int32

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        # In float64, which has all of them.
        return TORCH.cast(to_integer(numbers.double(), 32, TORCH), self.dtype)


INT32 = Int32()
