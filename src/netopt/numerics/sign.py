"""Signs: +1 or -1 in one bit, and their packing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from netopt.errors import InvalidArgument
from netopt.numerics.format import Array, ElementFormat, Shape
from netopt.numerics.operations import SMALLEST_NORMAL


def is_plus(numbers: torch.Tensor) -> torch.Tensor:
    """Where the sign of a number is +1: from 0 on, and where it is denormal in float32, which is zero."""
    return (numbers >= 0) | (numbers.abs() < SMALLEST_NORMAL)


@dataclass(frozen=True)
class SignFormat(ElementFormat):
    """+1 or -1 in one bit: 0 for +1, 1 for -1. Of a number its sign; that of 0 is +1, that of a
    denormal number, too, and that of NaN -1.

    A tensor has them as int8, one an element, and so has what a kernel packs; a kernel reads and writes words.

    Attributes:
        word: bits that the last axis in memory is padded to a multiple of: 32 for values that kernels compute, so that
            each pixel's channels begin a word; 1 for constants, whose bits follow each other. The padding is 0.
    """

    word: int = 32
    name: ClassVar[str] = "sign"

    def __post_init__(self) -> None:
        if self.word not in (1, 32):
            raise InvalidArgument("word of signs", expected="1 or 32 bits", found=self.word)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Words; of constants bytes, in any order that a kernel packs them in."""
        return np.dtype(np.uint32 if self.word == 32 else np.uint8)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.int8

    @property
    def packs_channels(self) -> bool:
        return self.word == 32

    @property
    def is_of_constants(self) -> bool:
        return self.word == 1

    def storage_bytes(self, shape: Shape) -> int:
        bits = -(-shape[-1] // self.word) * self.word * math.prod(shape[:-1]) if shape else 1
        return 4 * -(-bits // 32)

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        return 2 * is_plus(numbers).to(torch.int8) - 1

    def to_bytes(self, tensor: torch.Tensor) -> NDArray[np.uint8]:
        signs = self.to_array(tensor)
        return pack_signs(signs.reshape(-1) if self.word == 1 or not signs.ndim else signs).reshape(-1)

    def from_bytes(self, data: NDArray[np.uint8], shape: Shape) -> torch.Tensor:
        if self.word == 1 or not shape:
            return self.to_tensor(unpack_signs(data, math.prod(shape)), shape)
        return self.to_tensor(unpack_signs(data.reshape(*shape[:-1], -1), shape[-1]), shape)

    def sample(self, shape: Shape) -> Array:
        # Every other bit is set.
        return np.full(shape, int.from_bytes(b"\x55" * self.dtype.itemsize), self.dtype)


# Of values, and of constants.
SIGNS, SIGN_BITS = SignFormat(32), SignFormat(1)


def pack_signs(signs: NDArray[np.integer] | NDArray[np.floating], word: int = 32) -> NDArray[np.uint8]:
    """Bits of +1 (0) and -1 (1), the first in the lowest bit of the first byte; whole words along the last axis.

    Args:
        signs: (..., n) of +1 and -1.
        word: bits that each row is padded to a multiple of, a multiple of 8.

    Returns:
        (..., bytes): little-endian words.
    """
    bits = np.packbits(signs < 0, axis=-1, bitorder="little")
    padding = -(-signs.shape[-1] // word) * word // 8 - bits.shape[-1]
    # Contiguous, so that it can be seen as words, whatever the order of the signs in memory.
    return np.ascontiguousarray(np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, padding)]))


def unpack_signs(packed: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """The inverse of `pack_signs`: the first `count` of each row, as int8."""
    bits = np.unpackbits(packed, axis=-1, count=count, bitorder="little")
    return (1 - 2 * bits.astype(np.int8)).astype(np.int8)
