"""What the arithmetic of number formats is written in, so that the same lines run on torch tensors and in kernels."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike


class Operations(Protocol):
    """What is needed beside the operators of Python. Numbers are floating, of any precision; bits are integers."""

    def bits(self, number: Any) -> Any:
        """The 32 bits of a number in float32, as an integer that wraps around."""

    def of_bits(self, bits: Any) -> Any:
        """The inverse, in float32."""

    def cast(self, value: Any, dtype: DTypeLike) -> Any:
        """The value in another type: whole numbers exactly, bits that are too many cut off."""

    def select(self, condition: Any, one: Any, other: Any) -> Any:
        """`one` where the condition holds, else `other`."""

    def divide(self, number: Any, by: float) -> Any:
        """The quotient, correctly rounded to the number's type."""

    def floor(self, number: Any) -> Any:
        """The largest whole number that is not above it."""

    def clamp(self, number: Any, low: float, high: float) -> Any:
        """The nearest number from `low` to `high`."""


class TorchOperations:
    """On tensors. Unsigned integers, which torch computes little with, are signed ones of the same bits."""

    _DTYPES: ClassVar[dict[tuple[str, int], torch.dtype]] = {
        ("i", 1): torch.int8,
        ("i", 2): torch.int16,
        ("i", 4): torch.int32,
        ("f", 4): torch.float32,
    }

    def bits(self, number: torch.Tensor) -> torch.Tensor:
        return number.to(torch.float32).view(torch.int32)

    def of_bits(self, bits: torch.Tensor) -> torch.Tensor:
        return bits.view(torch.float32)

    def cast(self, value: torch.Tensor, dtype: DTypeLike) -> torch.Tensor:
        wanted = np.dtype(dtype)
        return value.to(self._DTYPES[wanted.kind.replace("u", "i"), wanted.itemsize])

    def select(self, condition: torch.Tensor, one: Any, other: Any) -> torch.Tensor:
        return torch.where(condition, one, other)

    def divide(self, number: torch.Tensor, by: float) -> torch.Tensor:
        return number / by

    def floor(self, number: torch.Tensor) -> torch.Tensor:
        return torch.floor(number)

    def clamp(self, number: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.clamp(number, low, high)


TORCH = TorchOperations()

# Numbers of float32 that are smaller in magnitude, and not 0, are denormal.
SMALLEST_NORMAL = 2.0**-126


def is_nan(number: Any, on: Operations) -> Any:
    """Whether it is no number: by its bits, since kernels may assume that all are numbers."""
    return (on.bits(number) & 0x7FFFFFFF) > 0x7F800000


def flushed(number: Any, on: Operations) -> Any:
    """The number, and zero of its sign where it is denormal in float32; in float32.

    By its bits: in kernels comparisons take a denormal for zero, and still hand on what it was.
    """
    bits = on.bits(number)
    return on.of_bits(on.select((bits & 0x7F800000) == 0, (bits >> 31) << 31, bits))


def to_integer(number: Any, codes: range, zero: int, on: Operations) -> Any:
    """floor(number + 1/2) + zero within the codes, the nearest of them beyond; zero for NaN.

    Still of the number's floating type. Exact for every number: one half is never added, which would round.
    """
    whole = on.floor(number)
    rounded = on.select(number - whole >= 0.5, whole + 1.0, whole)
    if zero:
        rounded = rounded + float(zero)
    return on.select(is_nan(number, on), float(zero), on.clamp(rounded, float(codes.start), float(codes.stop - 1)))
