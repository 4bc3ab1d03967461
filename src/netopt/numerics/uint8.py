"""Whole numbers from 0 to 255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from netopt.numerics.whole import WholeFormat


@dataclass(frozen=True)
class UInt8(WholeFormat):
    """8 bits without a sign: the pixels of images as files have them."""

    name: ClassVar[str] = "uint8"
    smallest: ClassVar[int] = 0
    largest: ClassVar[int] = 255

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.uint8


UINT8 = UInt8()
