"""Number formats: how the elements of a tensor are stored.

The only place that will round, saturate or pack. Every value of a graph has one of these formats; only the two
floating ones are lowered so far.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

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
class Sign(NumberFormat):
    """+1 or -1 in one bit, packed 32 to a word along the channel axis (axis 1; axis 0 of a vector)."""

    name: ClassVar[str] = "sign"

    def storage_bytes(self, shape: Shape) -> int:
        if not shape:
            return 4
        axis = min(1, len(shape) - 1)
        words = -(-shape[axis] // 32)
        return 4 * words * math.prod(size for i, size in enumerate(shape) if i != axis)


FLOAT32 = Float32()
BFLOAT16 = BFloat16()
# Formats that ops compute on in float32, whatever their values are stored in.
FLOATS = (FLOAT32, BFLOAT16)
_FORMATS: dict[str, type[NumberFormat]] = {f.name: f for f in (Float32, BFloat16, Int32, FixedPoint, Sign)}


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
