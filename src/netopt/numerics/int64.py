"""Whole numbers of 64 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from netopt.numerics.whole import WholeFormat


@dataclass(frozen=True)
class Int64(WholeFormat):
    """Two's complement, 64 bits: token ids, positions and indices, as PyTorch has them."""

    name: ClassVar[str] = "int64"
    smallest: ClassVar[int] = -(2**63)
    largest: ClassVar[int] = 2**63 - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int64)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.int64


INT64 = Int64()
