"""Elements in memory from one format to another, and functions of elements that are rounded once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import halide as hl

from netopt.kernels.machine.formats import Element, stored
from netopt.kernels.machine.kernel import OpT, Problem
from netopt.kernels.parts.units import Units
from netopt.numerics import Affine, CodeFormat, FixedPoint, NumberFormat

# Bits of a code that a product with a power of two keeps exact in float32.
_EXACT_IN_FLOAT32 = 16


@dataclass(frozen=True)
class Elementwise:
    """A function of elements, in the forms in which kernels compute it.

    Attributes:
        number: in float32, for outputs of floats.
        wide: in float64, by the operations of the op's reference: what it gives is rounded to codes.
        units: exactly, on whole numbers; None where they do not do it.
    """

    number: Callable[..., hl.Expr]
    wide: Callable[..., hl.Expr]
    units: Callable[..., Units] | None = None

    def stored(self, operands: Sequence[Element], written: NumberFormat) -> hl.Expr:
        """What it gives of elements, as it is stored."""
        if not isinstance(written, CodeFormat):
            # Strict: a quotient must be the correctly rounded one, not a product with an approximate reciprocal.
            return stored(hl.strict_float(self.number(*(operand.number for operand in operands))), written)
        units = self._in_units(operands, written)
        if units is not None:
            assert isinstance(written, FixedPoint)
            return units[0].stored(written)
        return stored(hl.strict_float(self.wide(*(operand.wide for operand in operands))), written)

    def bytes(self, read: Sequence[NumberFormat], written: NumberFormat) -> int:
        """Bytes of the type that vectors are made of."""
        units = self._in_units([Element(hl.Expr(0), format_) for format_ in read], written)
        return 4 if units is None else units[1] // 8

    def _in_units(self, operands: Sequence[Element], written: NumberFormat) -> tuple[Units, int] | None:
        """The result in units, and the bits that it takes, where the formats allow it."""
        if self.units is None or not isinstance(written, FixedPoint):
            return None
        if not all(isinstance(operand.format, FixedPoint) for operand in operands):
            return None
        units = self.units(*map(Units.of, operands))
        bits = units.bits(written)
        return None if bits is None else (units, bits)


# What only moves elements.
_MOVE = Elementwise(lambda x: x, lambda x: x, lambda x: x)


def moved(element: Element, written: NumberFormat) -> hl.Expr:
    """An element as it is stored in another format, rounded once; in its own, as it is."""
    if element.format == written:
        return element.stored
    is_of_codes = isinstance(element.format, CodeFormat)
    if not is_of_codes and _is_exact_in_float32(written):
        return stored(element.number, written)
    return _MOVE.stored([element], written)


def bytes_moved(read: NumberFormat, written: NumberFormat) -> int:
    """Bytes of the type that vectors are made of where elements are moved."""
    return written.dtype.itemsize if read == written else _MOVE.bytes([read], written)


def _is_exact_in_float32(format_: NumberFormat) -> bool:
    """Whether float32 numbers are rounded to it in float32: only times a power of two."""
    return not isinstance(format_, CodeFormat) or (
        isinstance(format_, FixedPoint) and format_.bits <= _EXACT_IN_FLOAT32
    )


def without_steps(problem: Problem[OpT]) -> Problem[OpT]:
    """The same with codes that stand for other numbers: of kernels that only move them, or read them as indices."""
    inputs = tuple(dataclasses.replace(type_, format=_without_step(type_.format)) for type_ in problem.inputs)
    output = dataclasses.replace(problem.output, format=_without_step(problem.output.format))
    return dataclasses.replace(problem, inputs=inputs, output=output)


def of_moves(problem: Problem[OpT]) -> Problem[OpT]:
    """What the machine code of a move depends on: where all have one format, not what its codes stand for."""
    formats = {type_.format for type_ in (*problem.inputs, problem.output) if not type_.format.is_whole}
    return without_steps(problem) if len(formats) == 1 else problem


def _without_step(format_: NumberFormat) -> NumberFormat:
    if isinstance(format_, FixedPoint):
        return dataclasses.replace(format_, fraction_bits=0)
    # Its zero point stays: it is what halos have.
    return dataclasses.replace(format_, scale=1.0) if isinstance(format_, Affine) else format_
