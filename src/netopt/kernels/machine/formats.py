"""Number formats in Halide: the types of elements in memory, and how kernels read and store them.

All that is known of a format is in its own file in numerics/; here is only what Halide calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import halide as hl
import numpy as np
from numpy.typing import DTypeLike

from netopt.numerics import Affine, Array, CodeFormat, NumberFormat

__all__ = ["HALIDE", "Array", "Element", "Source", "storage_type", "stored"]

_KINDS = {"f": hl.Float, "i": hl.Int, "u": hl.UInt}


class _HalideOperations:
    """`netopt.numerics.Operations` on expressions; numbers are float32, or float64 where a kernel asks for it."""

    def bits(self, number: hl.Expr) -> hl.Expr:
        return hl.reinterpret(hl.UInt(32), hl.f32(number))

    def of_bits(self, bits: hl.Expr) -> hl.Expr:
        return hl.reinterpret(hl.Float(32), bits)

    def cast(self, value: hl.Expr, dtype: DTypeLike) -> hl.Expr:
        return hl.cast(_type_of(np.dtype(dtype)), value)

    def select(self, condition: hl.Expr, one: Any, other: Any) -> hl.Expr:
        # A number of Python is one of float32 for Halide, whatever it is chosen beside.
        one = hl.cast(other.type(), one) if isinstance(one, float) else one
        return hl.select(condition, one, other)

    def divide(self, number: hl.Expr, by: float) -> hl.Expr:
        # Halide would multiply by the reciprocal, which rounds twice.
        return hl.strict_float(number / hl.cast(number.type(), by))

    def floor(self, number: hl.Expr) -> hl.Expr:
        return hl.floor(number)

    def clamp(self, number: hl.Expr, low: float, high: float) -> hl.Expr:
        # By float64: a number of Python must else be one of float32, as the last code of 32 bits is not.
        return hl.clamp(number, hl.cast(number.type(), hl.f64(low)), hl.cast(number.type(), hl.f64(high)))


HALIDE = _HalideOperations()


def _type_of(dtype: np.dtype[Any]) -> hl.Type:
    return _KINDS[dtype.kind](8 * dtype.itemsize)


def storage_type(format_: NumberFormat) -> hl.Type:
    """What Halide takes the elements in memory for."""
    return _type_of(format_.dtype)


def stored(value: hl.Expr, format_: NumberFormat) -> hl.Expr:
    """What a kernel computed, as it is written to memory: of floating numbers rounded to the format."""
    if isinstance(format_, Affine):
        # A quotient of float32 may be rounded to a tie.
        return format_.to_stored(hl.f64(value), HALIDE)
    return format_.to_stored(value, HALIDE)


@dataclass(frozen=True)
class Element:
    """An element of an operand, and the ways to read it.

    Attributes:
        stored: as it lies in memory.
        format: what it stands for.
    """

    stored: hl.Expr
    format: NumberFormat

    @property
    def number(self) -> hl.Expr:
        """Of real numbers in float32; of signs the word, of integers the number."""
        return self.format.to_number(self.stored, HALIDE)

    @property
    def wide(self) -> hl.Expr:
        """The number in float64: of codes exact, as on tensors."""
        if not isinstance(self.format, CodeFormat):
            return hl.f64(self.number)
        code = hl.f64(self.stored)
        code = code - float(self.format.zero) if self.format.zero else code
        # Exact either way; but of whole numbers and a step that float16 has, too, Halide 21 makes an integer product in
        # some places, and fails to compile it.
        return hl.strict_float(code * hl.f64(self.format.steps[0]))


class Source:
    """An input of a pipeline: real numbers are read in float32; of signs the words, of integers the numbers."""

    def __init__(self, name: str, rank: int, format_: NumberFormat) -> None:
        """Make the parameter `param`."""
        self.format = format_
        self.param = hl.ImageParam(storage_type(format_), rank, name)

    def element(self, coordinates: Any) -> Element:
        """The element there, to be read in any way."""
        return Element(self.param[coordinates], self.format)

    def wide(self, coordinates: Any) -> hl.Expr:
        """The number in float64: of codes exact, as on tensors."""
        return self.element(coordinates).wide

    def __getitem__(self, coordinates: Any) -> hl.Expr:
        return self.element(coordinates).number
