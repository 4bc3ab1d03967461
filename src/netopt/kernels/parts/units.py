"""Whole numbers of units: sums, products and choices of fixed-point codes, in 16 or 32 bits that provably hold them.

A unit is a power of two, 2^-fraction. Numbers of two units are brought to the smaller one by shifts, and a result is
rounded once, by a shift, so that it is the code of the exact number: what float64 gives, which is exact there, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import halide as hl

from netopt.kernels.machine.formats import Element, storage_type
from netopt.numerics import FixedPoint

# Bits of the types that are computed in.
_TYPES = (16, 32)


@dataclass(frozen=True)
class Units:
    """A whole number of units, still without a type.

    Attributes:
        value: the number, in the signed type of so many bits.
        fraction: a unit is 2^-fraction.
        most: what its magnitude does not exceed.
        peak: what no magnitude exceeds that is computed on the way, its own included.
    """

    value: Callable[[int], hl.Expr]
    fraction: int
    most: int
    peak: int

    @classmethod
    def of(cls, element: Element) -> Units:
        """A code."""
        assert isinstance(element.format, FixedPoint)
        most = max(-element.format.codes.start, element.format.codes.stop - 1)
        return cls(lambda bits: hl.cast(hl.Int(bits), element.stored), element.format.fractions[0], most, most)

    # --- exact

    def __add__(self, other: Units) -> Units:
        one, two = self._beside(other), other._beside(self)
        return one._with(lambda bits: one.value(bits) + two.value(bits), one.most + two.most, two)

    def __sub__(self, other: Units) -> Units:
        return self + (-other)

    def __neg__(self) -> Units:
        return self._with(lambda bits: -self.value(bits), self.most)

    def __mul__(self, other: Units) -> Units:
        most, peak = self.most * other.most, max(self.peak, other.peak, self.most * other.most)
        return Units(lambda bits: self.value(bits) * other.value(bits), self.fraction + other.fraction, most, peak)

    def larger(self, other: Units) -> Units:
        """The larger of both."""
        one, two = self._beside(other), other._beside(self)
        return one._with(lambda bits: hl.max(one.value(bits), two.value(bits)), max(one.most, two.most), two)

    def smaller(self, other: Units) -> Units:
        """The smaller of both."""
        return -(-self).larger(-other)

    def where_positive(self, other: Units) -> Units:
        """This one where it is above 0, else the other."""
        one, two = self._beside(other), other._beside(self)
        most = max(one.most, two.most)
        return one._with(lambda bits: hl.select(self.value(bits) > 0, one.value(bits), two.value(bits)), most, two)

    # --- rounded once

    def bits(self, written: FixedPoint) -> int | None:
        """Bits of the narrowest type that holds all that `stored` computes; None where none does."""
        peak = self.peak
        if self.fraction < written.fractions[0]:
            peak = max(peak, written.codes.stop + (1 << self._left(written)))
        fits = (bits for bits in _TYPES if bits >= written.bits and peak < 1 << (bits - 1))
        return next(fits, None)

    def stored(self, written: FixedPoint) -> hl.Expr:
        """The code of the number, where `bits` has a type for it: the nearest, of two as near the upper one."""
        bits = self.bits(written)
        assert bits is not None
        value, shift = self.value(bits), self.fraction - written.fractions[0]
        low, high = written.codes.start, written.codes.stop - 1
        if shift > 0:
            # Shifted by all its bits a number is 0 or -1, to which one half is too little to add.
            value = _halved(value, min(shift, bits), self.most, bits)
        elif shift < 0:
            left = self._left(written)
            # What is beyond the codes stays there.
            value = hl.clamp(value, _whole(low >> left, bits), _whole((high >> left) + 1, bits)) << _whole(left, bits)
        return hl.cast(storage_type(written), hl.clamp(value, _whole(low, bits), _whole(high, bits)))

    def _left(self, written: FixedPoint) -> int:
        """By how many bits a number is shifted to the left: by more, all but 0 is beyond the codes already."""
        return min(written.fractions[0] - self.fraction, written.bits)

    def _beside(self, other: Units) -> Units:
        """In the smaller unit of both."""
        left = max(self.fraction, other.fraction) - self.fraction
        if not left:
            return self
        most = self.most << left
        value = self.value
        return Units(
            lambda bits: value(bits) << _whole(left, bits), self.fraction + left, most, max(self.peak, other.peak, most)
        )

    def _with(self, value: Callable[[int], hl.Expr], most: int, other: Units | None = None) -> Units:
        """Another number in the same unit."""
        return Units(value, self.fraction, most, max(self.peak, other.peak if other else 0, most))


def _halved(value: hl.Expr, shift: int, most: int, bits: int) -> hl.Expr:
    """floor(value / 2^shift + 1/2)."""
    half = 1 << (shift - 1)
    if most + half < 1 << (bits - 1):
        return (value + _whole(half, bits)) >> _whole(shift, bits)
    # The same without a larger sum: rounded down twice is rounded down once.
    return ((value >> _whole(shift - 1, bits)) + _whole(1, bits)) >> _whole(1, bits)


def _whole(number: int, bits: int) -> hl.Expr:
    return hl.cast(hl.Int(bits), number)
