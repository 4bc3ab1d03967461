"""Number formats: how the elements of a tensor are stored, and the packing of signs.

The only place that rounds, saturates or packs. Every value of a graph has one of these formats; fixed point is not
lowered so far.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netopt.errors import InvalidArgument

Shape = tuple[int, ...]

# Bytes to which every value in the arena and every packed weight is aligned: a cache line, and the widest register.
ALIGNMENT = 64


@dataclass(frozen=True)
class NumberFormat(ABC):
    """How one element is stored."""

    name: ClassVar[str]

    @abstractmethod
    def storage_bytes(self, shape: Shape) -> int:
        """Bytes that a dense, contiguous tensor of `shape` takes."""

    def to_json(self) -> dict[str, object]:
        """The format as plain data; `number_format_from_json` is the inverse."""
        return {"name": self.name, **vars(self)}


@dataclass(frozen=True)
class Float32(NumberFormat):
    """IEEE 754 binary32."""

    name: ClassVar[str] = "float32"

    def storage_bytes(self, shape: Shape) -> int:
        return 4 * math.prod(shape)


@dataclass(frozen=True)
class BFloat16(NumberFormat):
    """The upper half of a binary32: 8 bits of precision, the same range. Rounded to nearest, ties to even."""

    name: ClassVar[str] = "bfloat16"

    def storage_bytes(self, shape: Shape) -> int:
        return 2 * math.prod(shape)


@dataclass(frozen=True)
class Int32(NumberFormat):
    """Two's complement, 32 bits: accumulators and biases of integer ops."""

    name: ClassVar[str] = "int32"

    def storage_bytes(self, shape: Shape) -> int:
        return 4 * math.prod(shape)


@dataclass(frozen=True)
class FixedPoint(NumberFormat):
    """Signed fixed point: value = code x 2^-fraction_bits. `fraction_bits` may be negative or above 15."""

    bits: int
    fraction_bits: int
    name: ClassVar[str] = "fixed"

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise InvalidArgument("bits of a fixed-point format", expected="8 or 16", found=self.bits)

    def storage_bytes(self, shape: Shape) -> int:
        return self.bits // 8 * math.prod(shape)


@dataclass(frozen=True)
class SignFormat(NumberFormat):
    """+1 or -1 in one bit: 0 for +1, 1 for -1.

    Attributes:
        word: bits that the last axis in memory is padded to a multiple of: 32 for values that kernels compute, so that
            each pixel's channels begin a word; 1 for constants, whose bits follow each other. The padding is 0.
    """

    word: int = 32
    name: ClassVar[str] = "sign"

    def __post_init__(self) -> None:
        if self.word not in (1, 32):
            raise InvalidArgument("word of signs", expected="1 or 32 bits", found=self.word)

    def storage_bytes(self, shape: Shape) -> int:
        bits = -(-shape[-1] // self.word) * self.word * math.prod(shape[:-1]) if shape else 1
        return 4 * -(-bits // 32)


FLOAT32 = Float32()
BFLOAT16 = BFloat16()
INT32 = Int32()
# Of values, and of constants.
SIGNS, SIGN_BITS = SignFormat(32), SignFormat(1)
# Formats that ops compute on in float32, whatever their values are stored in.
FLOATS = (FLOAT32, BFLOAT16)
_FORMATS: dict[str, type[NumberFormat]] = {f.name: f for f in (Float32, BFloat16, Int32, FixedPoint, SignFormat)}


def number_format_from_json(data: Mapping[str, object]) -> NumberFormat:
    """The inverse of `NumberFormat.to_json`.

    Raises:
        InvalidArgument: the name is unknown or the fields are not those of the format.
    """
    fields = dict(data)
    kind = _FORMATS.get(str(fields.pop("name", "")))
    wanted = set(getattr(kind, "__dataclass_fields__", ())) - {"name"}
    if kind is None or set(fields) != wanted or not all(type(v) is int for v in fields.values()):
        raise InvalidArgument("number format", expected=f"one of {', '.join(_FORMATS)} with its fields", found=data)
    return kind(**fields)


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
