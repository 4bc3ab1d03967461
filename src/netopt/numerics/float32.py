"""IEEE 754 binary32: what ops compute in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from netopt.numerics.format import ElementFormat


@dataclass(frozen=True)
class Float32(ElementFormat):
    """IEEE 754 binary32."""

    name: ClassVar[str] = "float32"
    is_real: ClassVar[bool] = True

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.float32

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers.to(torch.float32)


FLOAT32 = Float32()
