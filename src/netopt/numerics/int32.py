"""Whole numbers of 32 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from netopt.numerics.whole import WholeFormat


@dataclass(frozen=True)
class Int32(WholeFormat):
    """Two's complement, 32 bits: indices, and accumulators and biases of integer ops."""

    name: ClassVar[str] = "int32"
    smallest: ClassVar[int] = -(2**31)
    largest: ClassVar[int] = 2**31 - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.int32


INT32 = Int32()
