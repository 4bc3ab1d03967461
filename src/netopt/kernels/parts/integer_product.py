"""Products of codes: whole numbers, multiplied and summed exactly, in the instructions that a CPU has for them.

AVX-512 VNNI   8 bits x 8 bits: vpdpbusd, four products a lane; x of signed codes is read with 128 added
otherwise      8 bits, or 16 bits x 8 bits: pairs of 16-bit numbers, vpmaddwd, or vpdpwssd
any            sums that 32 bits may not hold: float64, in which they are exact up to 2^53
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Source
from netopt.kernels.parts.product import TermByTerm
from netopt.numerics import CodeFormat, NumberFormat

# What is added to signed codes so that they are unsigned ones: the same bits but for the highest.
OFFSET = 128


@dataclass(frozen=True)
class CodeProduct(TermByTerm):
    """Codes by codes, summed in 32 bits.

    Attributes:
        stored: the format of the weights.
        together: terms that one instruction takes.
        adds_offset: x is read with `OFFSET` added, and each sum is larger by that times the sum of its weights.
    """

    stored: NumberFormat
    together: int = 1
    adds_offset: bool = False

    @property
    def neighbours(self) -> int:  # type: ignore[override]
        return self.together

    @property
    def zero(self) -> hl.Expr:
        return hl.i32(0)

    @property
    def weight_format(self) -> NumberFormat:
        return self.stored

    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        x, w = source.param[there], weight.param[where]
        if self.adds_offset:
            x = hl.cast(hl.UInt(8), x) ^ hl.cast(hl.UInt(8), OFFSET)
        if self.together == 2:
            x, w = hl.i16(x), hl.i16(w)
        return hl.i32(x) * hl.i32(w)


@dataclass(frozen=True)
class WideCodeProduct(TermByTerm):
    """Codes by codes, summed in float64."""

    stored: NumberFormat

    @property
    def zero(self) -> hl.Expr:
        return hl.f64(0.0)

    @property
    def weight_format(self) -> NumberFormat:
        return self.stored

    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        return hl.f64(weight.param[where]) * hl.f64(source.param[there])


def product_of_codes(x: CodeFormat, weight: CodeFormat, largest_sum: int, cpu: Cpu) -> CodeProduct | WideCodeProduct:
    """The product for codes of these formats, where no sum, or part of one, is larger than `largest_sum`."""
    if largest_sum >= 2**31:
        return WideCodeProduct(cpu.lanes, weight)
    if cpu.has_vnni and max(x.bits, weight.bits) <= 8:
        # With the offset, sums are larger, and wrap around to the same number of 32 bits.
        return CodeProduct(cpu.lanes, weight, 4, adds_offset=x.is_signed)
    if cpu.is_x86:
        return CodeProduct(cpu.lanes, weight, 2)
    return CodeProduct(cpu.lanes, weight)
