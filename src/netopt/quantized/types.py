"""The types of a network's variables as their users write them: FLOAT32, FIXED8_5, FIXED16, UFIXED7_4, SIGN ..."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal, get_args

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, SIGNS, Affine, CodeFormat, FixedPoint, NumberFormat, Shape, SignFormat

TypeKind = Literal["float32", "fixed", "affine", "sign"]
VariableKind = Literal["input", "parameter", "buffer", "output"]

# Bits of codes that are no sums. Signed ones of fewer than 8 are those of weights.
_BITS = {True: (2, 3, 4, 5, 6, 7, 8, 16), False: (7, 8)}
_CODES = re.compile(r"(U?)(FIXED|AFFINE)([0-9]{1,3})(?:_(-?[0-9]{1,4}))?")
_EXAMPLES = ("FLOAT32", "FIXED16", "FIXED8", "FIXED4", "UFIXED8", "UFIXED7", "AFFINE8", "UAFFINE8", "SIGN")
_EXPECTED = "FLOAT32, FIXED16, FIXED8 or FIXED4, UFIXED8 or UFIXED7, each with _n or without, AFFINE8, UAFFINE8, SIGN"


@dataclass(frozen=True, kw_only=True)
class TypeWish:
    """The type that a variable is to have.

    Attributes:
        kind: "fixed" codes stand for multiples of a power of two, "affine" ones for multiples of a real scale.
        bits: of a code.
        signed: whether there are codes below 0.
        n: the fraction bits of fixed codes: value = code x 2^-n. None where it is to be found, from data or, for a
            parameter, from its values.

    Raises:
        InvalidArgument: there are no such codes.
    """

    kind: TypeKind
    bits: int = 32
    signed: bool = True
    n: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(TypeKind):
            raise InvalidArgument("kind of a type", expected=f"one of {get_args(TypeKind)}", found=repr(self.kind))
        if self.kind in ("fixed", "affine") and self.bits not in _BITS[self.signed]:
            kinds = ", ".join(map(str, _BITS[self.signed]))
            expected = f"one of {kinds} for {'signed' if self.signed else 'unsigned'} codes"
            raise InvalidArgument("bits", expected=expected, found=self.bits)
        if self.n is not None and self.kind != "fixed":
            raise InvalidArgument("n", expected="fixed codes, which alone have one", found=self.kind)
        _ = self.format  # which refuses an n that there is not

    @property
    def format(self) -> NumberFormat | None:
        """The number format; None where its position or scale is yet to be found."""
        if self.kind == "float32":
            return FLOAT32
        if self.kind == "sign":
            return SIGNS
        return None if self.n is None else FixedPoint(self.bits, self.n, self.signed)

    def __str__(self) -> str:
        if self.kind in ("float32", "sign"):
            return self.kind.upper()
        return f"{'' if self.signed else 'U'}{self.kind.upper()}{self.bits}{'' if self.n is None else f'_{self.n}'}"


@dataclass(frozen=True)
class Variable:
    """A variable of a network, as settings list it.

    Attributes:
        name: in the network's graph.
        kind: "buffer" is what is computed and no output.
        shape: its extents.
        type: its type, as `parse_type` reads it.
    """

    name: str
    kind: VariableKind
    shape: Shape
    type: str


class TypeRefused(InvalidArgument):
    """A type that a variable cannot have.

    Args:
        variable: its name, by which whoever knows where the type was written finds the place.
        expected: what would have been right.
        found: the type, and what is wrong with it.
        fix: what to do.
    """

    def __init__(self, variable: str, *, expected: str, found: object, fix: str | None = None) -> None:
        super().__init__(f"type of '{variable}'", expected=expected, found=found, fix=fix)
        self.variable = variable


def parse_type(text: str) -> TypeWish:
    """The type that a text names.

    Raises:
        InvalidArgument: it names none; what is close to it is offered.
    """
    if text in ("FLOAT32", "SIGN"):
        return TypeWish(kind="float32") if text == "FLOAT32" else TypeWish(kind="sign", bits=1)
    match = _CODES.fullmatch(text)
    if match is None:
        # Other tools call them INT8 and UINT8.
        close = difflib.get_close_matches(text.upper().replace("INT", "FIXED"), _EXAMPLES, 1, 0.5)
        fix = f"did you mean {close[0]}?" if close else None
        raise InvalidArgument("type", expected=_EXPECTED, found=shortened(text), fix=fix)
    unsigned, kind, bits, n = match.groups()
    try:
        return TypeWish(
            kind="fixed" if kind == "FIXED" else "affine",
            bits=int(bits),
            signed=not unsigned,
            n=None if n is None else int(n),
        )
    except InvalidArgument as error:
        raise InvalidArgument(f"type {text}: {error}") from None


def type_name(format_: NumberFormat) -> str:
    """The text that names a format, the inverse of `parse_type`; of other formats their own name, in capitals.

    Codes whose channels have positions of their own are named without n, which is found again from the values.
    """
    if isinstance(format_, SignFormat):
        return "SIGN"
    if not isinstance(format_, CodeFormat):
        return format_.name.upper()
    name = f"{'' if format_.is_signed else 'U'}{'AFFINE' if isinstance(format_, Affine) else 'FIXED'}{format_.bits}"
    if isinstance(format_, FixedPoint) and len(set(format_.fractions)) == 1:
        return f"{name}_{format_.fractions[0]}"
    return name


def position_text(format_: NumberFormat) -> str:
    """Where codes stand: n, or the range of what the channels have; of affine codes their scales. Else nothing."""
    if isinstance(format_, FixedPoint):
        low, high = min(format_.fractions), max(format_.fractions)
        return str(low) if low == high else f"{low} to {high}"
    if isinstance(format_, Affine):
        least, most = f"{min(format_.steps):.4g}", f"{max(format_.steps):.4g}"
        return f"scale {least}" if least == most else f"scales {least} to {most}"
    return ""


def shortened(text: str, most: int = 40) -> str:
    """A text in quotes on one line, as messages show what they found."""
    return repr(text if len(text) <= most else f"{text[:most]}...")
