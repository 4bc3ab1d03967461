"""Affine codes: whole numbers of a few bits that stand for multiples of a real scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics.codes import CodeFormat

# Bits of precision of a scale. Then a product of two scales with a sum of 37 bits is exact in float64, and so a sum of
# products is rounded once, the same on every machine.
SCALE_BITS = 8


@dataclass(frozen=True)
class Affine(CodeFormat):
    """value = (code - zero_point) x scale, where scale is a number of 8 significant bits; see `CodeFormat`.

    Codes of 24 and 32 bits are those of sums: their scales are products of two such numbers, and have 16.

    A number x becomes the code floor(x / scale + 1/2) + zero_point: to nearest, halves upward.

    Attributes:
        bits: of a code, as of `FixedPoint`.
        scale: above 0; with a row of them, one for each element along the first axis, which of weights is that of the
            output channels.
        zero_point: the code of 0.
        signed: whether there are codes below 0.
    """

    scale: float | tuple[float, ...]
    zero_point: int = 0
    signed: bool = True
    name: ClassVar[str] = "affine"

    def __post_init__(self) -> None:
        if type(self.signed) is not bool:
            raise InvalidType("signed of an affine format", expected="True or False", found=repr(self.signed))
        self._check_codes()
        for scale in self.steps:
            digits = self._scale_bits
            if type(scale) is not float or not 2.0**-112 <= scale <= 2.0**112 or scale != round_scale(scale, digits):
                expected = f"numbers above 0 of {digits} significant bits"
                fix = "round it with netopt.numerics.round_scale"
                raise InvalidArgument("scale of an affine format", expected=expected, found=scale, fix=fix)
        if type(self.zero_point) is not int or self.zero_point not in self.codes:
            expected = f"a code from {self.codes.start} to {self.codes.stop - 1}"
            raise InvalidArgument("zero point of an affine format", expected=expected, found=self.zero_point)

    @property
    def _scale_bits(self) -> int:
        """Significant bits of its scales: of sums those of a product of two scales."""
        return SCALE_BITS if self.bits <= 16 else 2 * SCALE_BITS

    @property
    def is_signed(self) -> bool:
        return self.signed

    @property
    def is_by_channel(self) -> bool:
        return isinstance(self.scale, tuple)

    @property
    def steps(self) -> tuple[float, ...]:
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    @property
    def zero(self) -> int:
        return self.zero_point


def round_scale(scale: float, digits: int = SCALE_BITS) -> float:
    """The nearest number of so many significant bits, of two as near that with the even last bit."""
    mantissa, exponent = math.frexp(scale)
    return math.ldexp(round(math.ldexp(mantissa, digits)), exponent - digits)
