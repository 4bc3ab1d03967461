"""Products of codes: whole numbers, multiplied and summed exactly, in the instructions that a CPU has for them.

AVX-512 VNNI   8 bits x 8 bits: vpdpbusd, four products a lane, of unsigned by signed bytes
Arm            8 bits x 8 bits, with dot products: sdot, four products a lane, of signed bytes
other x86-64   unsigned x signed, where two products fit into 16 bits (7 bits x 8): vpmaddubsw, then vpmaddwd
               other 8 bits, 16 bits x 8: pairs of 16-bit numbers, vpmaddwd
any            sums that 32 bits may not hold: in blocks that they do hold, or in float64, exact up to 2^53

Where an instruction wants other numbers than x has, these are made once for the positions of a register tile: 16-bit
ones, or bytes with 128 added or taken away, which is the same bits but for the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Source, storage_type
from netopt.kernels.parts.byte_sum import PairSum
from netopt.kernels.parts.product import Summation, TermByTerm
from netopt.kernels.parts.tile_sum import Sum
from netopt.numerics import CodeFormat, NumberFormat

# What is added to, or taken from, codes of 8 bits to have others of the other sign.
OFFSET = 128
# Sums of 32 bits are smaller; half of that, so that an offset of the codes does no harm.
MOST = 2**30
# A block of fewer steps than this takes more time to add up than it saves.
_SHORTEST_BLOCK = 4


@dataclass(frozen=True)
class CodeProduct(TermByTerm):
    """Codes by codes, summed in 32 bits.

    Attributes:
        stored: the format of the weights.
        together: terms that one instruction takes.
        converted: the type that x is converted to for the positions of a tile; None: it is multiplied as it is.
        offset: x is read with this added, and each sum is larger by that times the sum of its weights.
        steps_in_block: sums of more steps, for each element of the window, are summed in blocks of as many.
    """

    stored: NumberFormat
    together: int = 1
    converted: hl.Type | None = None
    offset: int = 0
    steps_in_block: int = 0

    @property
    def neighbours(self) -> int:  # type: ignore[override]
        return self.together

    @property
    def zero(self) -> hl.Expr:
        return hl.f64(0.0) if self.steps_in_block else hl.i32(0)

    @property
    def zero_of_block(self) -> hl.Expr:
        return hl.i32(0)

    @property
    def weight_format(self) -> NumberFormat:
        return self.stored

    def for_tiles(self, cpu: Cpu) -> Cpu:
        """The CPU as register tiles see it: without the registers that a step takes besides theirs."""
        return cpu

    def blocks(self, steps: int) -> int:
        """The fewest equal blocks that so many steps are cut into."""
        most = self.steps_in_block or steps
        return next(count for count in range(1, steps + 1) if steps % count == 0 and steps // count <= most)

    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        x, w = source.param[there], weight.param[where]
        if self.together == 2:
            x, w = hl.i16(x), hl.i16(w)
        return hl.i32(x) * hl.i32(w)

    def sums(self, summation: Summation) -> Sum:
        assert summation.schedule.blocks % self.blocks(self.steps(summation.terms)) == 0
        if self.converted is None:
            return self._sums(summation)
        return _of_converted(self._sums, summation, self.converted, self.offset)

    def _sums(self, summation: Summation) -> Sum:
        return super().sums(summation)


@dataclass(frozen=True)
class PairsOfBytes(CodeProduct):
    """Unsigned codes by signed ones, of which two products fit into 16 bits; four are a step."""

    together: int = 4

    def for_tiles(self, cpu: Cpu) -> Cpu:
        # A vector of ones, and a pair before it is added: tiles of 6 x 2, too many, do 67 GMAC/s where 5 x 2 do 114.
        return replace(cpu, registers=cpu.registers - 2)

    def _sums(self, summation: Summation) -> Sum:
        return PairSum(summation, self.lanes)


@dataclass(frozen=True)
class WideCodeProduct(TermByTerm):
    """Codes by codes, summed in float64, of which a vector has half as many."""

    stored: NumberFormat
    offset: ClassVar[int] = 0

    @classmethod
    def of(cls, stored: NumberFormat, cpu: Cpu) -> WideCodeProduct:
        """That for weights of this format."""
        return cls(max(1, cpu.lanes // 2), stored)

    @property
    def zero(self) -> hl.Expr:
        return hl.f64(0.0)

    @property
    def weight_format(self) -> NumberFormat:
        return self.stored

    def for_tiles(self, cpu: Cpu) -> Cpu:
        """As of `CodeProduct`."""
        return replace(cpu, lanes=self.lanes)

    def blocks(self, steps: int) -> int:
        """As of `CodeProduct`: one."""
        return 1

    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        return hl.f64(weight.param[where]) * hl.f64(source.param[there])

    def sums(self, summation: Summation) -> Sum:
        return _of_converted(super().sums, summation, hl.Float(64), 0)


class _Converted(Source):
    """A source as a product reads it."""

    def __init__(self, source: Source, type_: hl.Type, offset: int, suffix: str) -> None:
        self.format, self.func = source.format, hl.Func(f"converted{suffix}")
        at = [hl.Var(f"at{i}") for i in range(source.param.dimensions())]
        code = hl.cast(type_, source.param[at])
        self.func[at] = code ^ hl.cast(type_, OFFSET) if offset else code
        self.param = self.func


def _of_converted(sums: Callable[[Summation], Sum], of: Summation, type_: hl.Type, offset: int) -> Sum:
    """The sums of what is converted to this type."""
    source = _Converted(of.source, type_, offset, of.suffix)
    result = sums(replace(of, source=source))
    result.converted = source.func
    return result


def product_of_codes(
    x: CodeFormat, weight: CodeFormat, terms: int, window: int, cpu: Cpu
) -> CodeProduct | WideCodeProduct:
    """The product for codes of these formats.

    Args:
        x: the format of what is multiplied by the weights.
        weight: theirs.
        terms: of a sum, for each element of the window.
        window: elements of the window.
        cpu: the CPU.
    """
    largest = largest_code(x) * largest_code(weight)
    is_bytes = max(x.bits, weight.bits) <= 8
    if largest * terms * window < MOST:
        return _product_of_bytes(x, weight, cpu) if is_bytes else _pairs(x, weight, cpu)
    steps = MOST // (largest * window) // 2
    if min(steps, terms // 2) < _SHORTEST_BLOCK:
        return WideCodeProduct.of(weight, cpu)
    return replace(_pairs(x, weight, cpu), steps_in_block=steps)


def largest_code(format_: CodeFormat) -> int:
    """The largest magnitude of a code."""
    return max(-format_.codes.start, format_.codes.stop - 1)


def _product_of_bytes(x: CodeFormat, weight: CodeFormat, cpu: Cpu) -> CodeProduct:
    if cpu.has_vnni:
        converted = (hl.UInt(8), OFFSET) if x.is_signed else (None, 0)
        return CodeProduct(cpu.lanes, weight, 4, *converted)
    if cpu.has_dot_products:
        converted = (hl.Int(8), 0 if x.is_signed or x.bits < 8 else -OFFSET)
        return CodeProduct(cpu.lanes, weight, 4, *converted)
    if cpu.has_pairs_of_bytes and not x.is_signed and 2 * largest_code(x) * largest_code(weight) < 2**15:
        return PairsOfBytes(cpu.lanes, weight)
    return _pairs(x, weight, cpu)


def _pairs(x: CodeFormat, weight: CodeFormat, cpu: Cpu) -> CodeProduct:
    if not cpu.is_x86:
        return CodeProduct(cpu.lanes, weight)
    is_wide = storage_type(x).bits() == 16
    return CodeProduct(cpu.lanes, weight, 2, None if is_wide else hl.Int(16))
