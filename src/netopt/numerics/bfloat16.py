"""bfloat16: float32 with 8 bits of precision.

numpy and Halide's Python buffers have no bfloat16: its bits go as unsigned 16-bit integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from netopt.numerics.format import Array, ElementFormat, Shape
from netopt.numerics.operations import TORCH, Operations, is_nan

# Numbers that are rounded at once: what is computed on the way stays in the cache.
_PIECE = 2**15


@dataclass(frozen=True)
class BFloat16(ElementFormat):
    """The upper half of a binary32: 8 bits of precision, the same range. Rounded to nearest, ties to even.

    A number between the largest and infinity is rounded as if the exponent went on. NaN stays NaN, with its sign and
    the upper bits of its payload, quiet.
    """

    name: ClassVar[str] = "bfloat16"
    is_real: ClassVar[bool] = True

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint16)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.bfloat16

    def to_stored(self, number: Any, on: Operations) -> Any:
        # By its bits: Halide's own conversion has no instruction on x86, warns of that, and turns some NaN into zeros.
        bits = on.bits(number)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        # The sum would carry the payload of a NaN into its sign.
        quiet = (bits >> 16) | 0x40
        return on.cast(on.select(is_nan(number, on), quiet, rounded), self.dtype)

    def to_number(self, stored: Any, on: Operations) -> Any:
        return on.of_bits(on.cast(stored, np.uint32) << 16)

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        flat = numbers.reshape(-1)
        bits = torch.empty(flat.shape, dtype=torch.int16, device=flat.device)
        for start in range(0, flat.numel(), _PIECE):
            bits[start : start + _PIECE] = self.to_stored(flat[start : start + _PIECE], TORCH)
        return bits.view(torch.bfloat16).reshape(numbers.shape)

    def to_array(self, tensor: torch.Tensor) -> Array:
        return tensor.view(torch.int16).numpy().view(np.uint16)

    def to_tensor(self, array: Array, shape: Shape) -> torch.Tensor:
        return super().to_tensor(array.view(np.int16), shape).view(torch.bfloat16)


BFLOAT16 = BFloat16()
