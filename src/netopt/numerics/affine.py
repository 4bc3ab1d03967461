"""Affine codes: whole numbers of a few bits that stand for multiples of a real scale.

Scales have 8 significant bits, so that what a layer computes is the same on every machine. Claim: let the scales of x,
of the weight and of y be A 2^a, B 2^b and C 2^c, with whole A, B and C below 2^8. Let the magnitudes of all products of
codes, each less its zero point, and of the bias's code, in the step AB 2^(a + b), sum to 2^37 at most. Then numbers
decoded in float64, multiplied, added in any order and encoded give the code of the exact sum v: floor(v / s_y + 1/2).

1. Nothing is rounded before the quotient. Each product, and each sum of some of them, is a whole number times
   AB 2^(a + b). The whole number is at most 2^37 and AB below 2^16, so float64, which has 53 bits, holds it.
2. So v = M 2^(a + b) with |M| <= 2^53, and the quotient q = v / s_y = M 2^e / C with e = a + b - c is rounded once, by
   at most 2^-53 / (1 + 2^-53) |q|, which is less than 2^-53 |q|.
3. Rounding is monotone, and keeps each half h = k + 1/2 that separates two codes. So the code changes only if a q < h
   is rounded to h. Over their common denominator q and h are whole numbers, at least 1 apart:
   - if e < 0 it is C 2^-e, over which q is M and h is whole: h - q >= |q| / |M| >= 2^-53 |q|. No rounding goes as far.
   - if e >= 0 it is 2C: h - q >= 1 / 2C > 2^-9. No rounding goes as far where |q| <= 2^44, and beyond all codes of 32
     bits and fewer are saturated.

`tests/numerics/test_affine.py` compares this with exact fractions. Of fixed point, where A = B = C = 1, it holds for
sums up to 2^53.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics.codes import CodeFormat

# Bits of precision of a scale.
SCALE_BITS = 8
_SMALLEST, _LARGEST = 2.0**-112, 2.0**112


@dataclass(frozen=True)
class Affine(CodeFormat):
    """value = (code - zero_point) x scale, where scale is a number of 8 significant bits; see `CodeFormat`.

    Codes of 24 and 32 bits are those of biases: their scales are products of two such numbers, and have 16.

    A number x becomes the code floor(x / scale + 1/2) + zero_point: to nearest, halves upward.

    Attributes:
        bits: of a code, as of `FixedPoint`.
        scale: from 2^-112 to 2^112; with a row of them, one for each element along the first axis, which of weights is
            that of the output channels.
        zero_point: the code of 0.
        signed: whether there are codes below 0.
    """

    scale: float | tuple[float, ...]
    zero_point: int = 0
    signed: bool = True
    name: ClassVar[str] = "affine"
    kind: ClassVar[str] = "affine"

    def __post_init__(self) -> None:
        if type(self.signed) is not bool:
            raise InvalidType("signed of an affine format", expected="True or False", found=repr(self.signed))
        self._check_codes()
        for scale in self.steps:
            self._check_scale(scale)
        if type(self.zero_point) is not int or self.zero_point not in self.codes:
            expected = f"a code from {self.codes.start} to {self.codes.stop - 1}"
            raise InvalidArgument("zero point of an affine format", expected=expected, found=self.zero_point)

    def _check_scale(self, scale: object) -> None:
        digits = SCALE_BITS if self.bits <= 16 else 2 * SCALE_BITS
        if type(scale) is not float or not _SMALLEST <= scale <= _LARGEST or scale != round_scale(scale, digits):
            raise InvalidArgument(
                "scale of an affine format",
                expected=f"floats from 2^-112 to 2^112 of {digits} significant bits",
                found=scale,
                fix="round it with netopt.numerics.round_scale",
            )

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
    """The nearest number of so many significant bits, of two as near that with the even last bit.

    Raises:
        InvalidArgument: the scale is not a finite number above 0.
    """
    if not 0.0 < scale < math.inf:
        raise InvalidArgument("scale", expected="a finite number above 0", found=scale)
    mantissa, exponent = math.frexp(scale)
    return math.ldexp(round(math.ldexp(mantissa, digits)), exponent - digits)
