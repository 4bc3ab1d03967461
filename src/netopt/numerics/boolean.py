"""Truth values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from netopt.numerics.format import Array, Shape
from netopt.numerics.whole import WholeFormat


@dataclass(frozen=True)
class Boolean(WholeFormat):
    """True or False, a byte each: 1 or 0. Of a number whether it is not 0; NaN is not."""

    name: ClassVar[str] = "bool"
    smallest: ClassVar[int] = 0
    largest: ClassVar[int] = 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.bool

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers != 0

    def to_array(self, tensor: torch.Tensor) -> Array:
        return tensor.view(torch.uint8).numpy()

    def to_tensor(self, array: Array, shape: Shape) -> torch.Tensor:
        return torch.from_numpy(array).view(torch.bool).reshape(shape)


BOOL = Boolean()
