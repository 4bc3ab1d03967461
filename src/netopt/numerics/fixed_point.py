"""Fixed point: whole numbers of a few bits that stand for numbers a power of two smaller or larger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics.codes import CodeFormat
from netopt.numerics.operations import Operations

# All that codes of 16 bits and fewer stand for are normal float32 numbers, and denormals round to 0.
_FRACTIONS = range(-112, 126)


@dataclass(frozen=True)
class FixedPoint(CodeFormat):
    """Fixed point: value = code x 2^-fraction_bits; see `CodeFormat`.

    A number x becomes the code floor(x 2^fraction_bits + 1/2): to nearest, halves upward.

    Attributes:
        bits: of a code: 8 or 16; 2 to 7 for signed constants, or unsigned codes; 24 or 32 for biases.
        fraction_bits: from -112 to 125; with a row of them, one for each element along the first axis, which of weights
            is that of the output channels.
        signed: whether there are codes below 0; without them codes have 8 bits at most.
    """

    fraction_bits: int | tuple[int, ...]
    signed: bool = True
    name: ClassVar[str] = "fixed"
    kind: ClassVar[str] = "fixed-point"

    def __post_init__(self) -> None:
        if type(self.signed) is not bool:
            raise InvalidType("signed of a fixed-point format", expected="True or False", found=repr(self.signed))
        self._check_codes()
        for fraction in self.fractions:
            if type(fraction) is not int or fraction not in _FRACTIONS:
                expected = f"integers from {_FRACTIONS.start} to {_FRACTIONS.stop - 1}"
                raise InvalidArgument("fraction bits of a fixed-point format", expected=expected, found=fraction)

    @property
    def fractions(self) -> tuple[int, ...]:
        """The fraction bits: one number, or one for each channel."""
        return self.fraction_bits if isinstance(self.fraction_bits, tuple) else (self.fraction_bits,)

    @property
    def is_signed(self) -> bool:
        return self.signed

    @property
    def is_by_channel(self) -> bool:
        return isinstance(self.fraction_bits, tuple)

    @property
    def steps(self) -> tuple[float, ...]:
        return tuple(2.0**-fraction for fraction in self.fractions)

    def scaled(self, number: Any, on: Operations) -> Any:
        return number * (1.0 / self._step())
