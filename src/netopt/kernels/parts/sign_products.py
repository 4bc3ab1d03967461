"""Products of signs: with signs, exclusive or, count of bits and addition; with floats, additions and subtractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.parts.epilogue import Result
from netopt.kernels.parts.product import Product, Summation, TermByTerm
from netopt.kernels.parts.sign_tile import Unit
from netopt.kernels.parts.tile import Band, TileSchedule
from netopt.kernels.parts.tile_sum import Sum, Term
from netopt.numerics import SIGNS, NumberFormat, pack_signs, unpack_signs
from netopt.ops import TensorType

# Counts of 8 that fit into a byte.
_BYTES_IN_A_BYTE = 31


@dataclass(frozen=True)
class SignCounts(TermByTerm):
    """Signs by signs: how many differ, counted in words of 32 or in bytes.

    Attributes:
        unit: what a lane counts at once.
    """

    unit: Unit
    begins_with_bias: ClassVar[bool] = False
    per_multiply_add: ClassVar[int] = 8

    @classmethod
    def of(cls, cpu: Cpu) -> SignCounts:
        """The one that suits a CPU."""
        unit = Unit.of(cpu)
        return cls(unit.lanes, unit)

    @property
    def zero(self) -> hl.Expr:
        return hl.u32(0)

    @property
    def weight_format(self) -> NumberFormat:
        return self.unit.format

    def source_type(self, type_: TensorType) -> TensorType:
        return TensorType(type_.shape, self.unit.format)

    def elements(self, terms: int) -> int:
        return self.unit.steps(terms)

    def stored_elements(self, terms: int) -> int:
        return -(-terms // 32)

    def encoded(self, weights: Array) -> Array:
        """Signs (..., terms), as int8, in units; the bits that fill a word are 0."""
        return pack_signs(weights).view(self.unit.dtype)

    def decoded(self, elements: Array, terms: int) -> Array:
        return unpack_signs(np.ascontiguousarray(elements).view(np.uint8), terms)

    def view(self, source: Array) -> Array:
        return self.unit.view(source)

    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        return hl.popcount(weight[where] ^ source[there])

    def sums(self, summation: Summation) -> Sum:
        if self.unit.bits == 8:
            of, extents = summation, [self.steps(summation.terms), *summation.window]
            return ByteSum(of.suffix, of.others, extents, of.schedule, self.lanes, partial(self.term, of))
        return super().sums(summation)

    def result_of(self, terms: int) -> Result | None:
        return lambda count, _: self.sum_of(count, terms)

    def sum_of(self, count: hl.Expr, most: hl.Expr | int) -> hl.Expr:
        """The sum of the products of signs: what it is if none differs, less 2 for each that does."""
        return most - 2 * hl.i32(count)


@dataclass(frozen=True)
class SignFlips(Product):
    """Weights of +1 and -1 by floats: each number is added with its sign flipped where the weight's bit is set.

    A vector of words holds the weights of 32 terms for as many outputs as it has lanes.
    """

    begins_with_bias: ClassVar[bool] = False
    per_multiply_add: ClassVar[int] = 8

    @property
    def weight_format(self) -> NumberFormat:
        return SIGNS

    def elements(self, terms: int) -> int:
        return -(-terms // 32)

    def encoded(self, weights: Array) -> Array:
        return pack_signs(weights).view(np.uint32)

    def decoded(self, elements: Array, terms: int) -> Array:
        return unpack_signs(np.ascontiguousarray(elements).view(np.uint8), terms)

    def sums(self, summation: Summation) -> Sum:
        assert not summation.others and not summation.window, "of dense layers"
        return FlipSum(summation, self.lanes)


class ByteSum(Sum):
    """As `TileSum`, of counts in bytes: `part` adds up what fits into bytes, `total` the parts, in 16 or 32 bits."""

    def __init__(
        self,
        suffix: str,
        others: Sequence[hl.Var],
        extents: Sequence[int],
        s: TileSchedule,
        lanes: int,
        term: Term,
    ) -> None:
        """Define the sum; see `TileSum`. Each term is an unsigned byte, at most 8."""
        # --- algorithm
        steps, *windows = extents
        run = _run(steps)
        # Whole rows of a window at a time, if they fit.
        across = windows[0] if windows and run == steps and steps * windows[0] <= _BYTES_IN_A_BYTE else 1
        wide = hl.UInt(16) if 8 * math.prod(extents) < 2**16 else hl.UInt(32)
        self.s, self.lanes = s, lanes
        n, m = self.n, self.m = hl.Var("n"), hl.Var("m")
        chunk, place = hl.Var("chunk"), [hl.Var(f"place{i}") for i in range(len(windows))]
        inner = hl.RDom([(0, run), (0, across)], f"k{suffix}")
        outer = hl.RDom([(0, steps // run), *((0, w if across == 1 or i else 1) for i, w in enumerate(windows))])
        self.inner = [inner.x, inner.y]
        self.outer = [outer[i] for i in range(1 + len(windows))]
        self.step = self.outer[0]
        self.total, self.part = hl.Func(f"total{suffix}"), hl.Func(f"part{suffix}")
        indices: list[hl.Expr] = [chunk * run + inner.x, *place]
        if across > 1:
            indices[1] = hl.Expr(inner.y)
        self.part[[n, m, *others, chunk, *place]] = hl.u8(0)
        self.part[[n, m, *others, chunk, *place]] += term(n, m, others, indices)
        self.total[[n, m, *others]] = hl.cast(wide, 0)
        self.total[[n, m, *others]] += hl.cast(wide, self.part[[n, m, *others, *self.outer]])

    def schedule(self, consumer: hl.Func, rows: hl.Var | hl.RVar, band: Band) -> None:
        """See `Sum`."""
        # --- schedule
        n, m, tile = self.n, self.m, self.s.vectors * self.lanes
        self.total.compute_at(consumer, rows).bound_extent(n, tile).align_bounds(n, tile)
        self.total.store_in(hl.MemoryType.Stack).vectorize(n, self.lanes).unroll(n).unroll(m)
        self.total.update().reorder(n, m, *self.outer).vectorize(n, self.lanes).unroll(n).unroll(m)
        self.part.compute_at(self.total, self.outer[0]).bound_extent(n, tile).vectorize(n, self.lanes)
        self.part.store_in(hl.MemoryType.Stack).unroll(n).unroll(m)
        update = self.part.update().reorder(n, m, *self.inner).vectorize(n, self.lanes)
        update.unroll(n).unroll(m)


def _run(steps: int) -> int:
    """The most bytes that are a whole part of `steps`, and whose counts fit into a byte."""
    return next(run for run in range(min(steps, _BYTES_IN_A_BYTE), 0, -1) if steps % run == 0)


class FlipSum(Sum):
    """total[n, m]: the sum of all inputs, each with its sign flipped where the weight's bit is set."""

    def __init__(self, summation: Summation, lanes: int) -> None:
        """Define the sum."""
        # --- algorithm
        self.s, self.lanes, suffix = summation.schedule, lanes, summation.suffix
        n, m = self.n, self.m = hl.Var("n"), hl.Var("m")
        self.total = hl.Func(f"total{suffix}")
        self.total[n, m] = hl.f32(0.0)
        self.parts: list[tuple[hl.Func, hl.RVar, hl.RVar]] = []
        whole, rest = divmod(summation.terms, 32)
        for start, words, bits in ((0, whole, 32), (whole, 1, rest)):
            if not words or not bits:
                continue
            part, k = hl.Func(f"part{suffix}_{start}"), hl.Var("k")
            bit, word = (
                hl.RDom([(0, bits)], f"bit{suffix}_{start}").x,
                hl.RDom([(start, words)], f"word{suffix}_{start}").x,
            )
            part[n, m, k] = (hl.f32(0.0), summation.weight[summation.weight_place(n, [], k)] << hl.u32(32 - bits))
            place = summation.place(m, [], k * 32 + (bits - 1 - bit), [])
            number = hl.reinterpret(hl.UInt(32), summation.source[place])
            acc, state = part[n, m, k][0], part[n, m, k][1]
            flipped = hl.reinterpret(hl.Float(32), number ^ (state & hl.u32(0x80000000)))
            part[n, m, k] = (acc + flipped, state + state)
            self.total[n, m] += part[n, m, word][0]
            self.parts.append((part, bit, word))
        self.step = self.parts[0][2]

    def schedule(self, consumer: hl.Func, rows: hl.Var | hl.RVar, band: Band) -> None:
        """See `Sum`."""
        # --- schedule
        n, m, tile = self.n, self.m, self.s.vectors * self.lanes
        self.total.compute_at(consumer, rows).bound_extent(n, tile).align_bounds(n, tile)
        self.total.store_in(hl.MemoryType.Stack).vectorize(n, self.lanes).unroll(n).unroll(m)
        for number, (part, bit, word) in enumerate(self.parts):
            update = self.total.update(number).reorder(n, m, word)
            update.vectorize(n, self.lanes).unroll(n).unroll(m)
            part.compute_at(self.total, word).bound_extent(n, tile).store_in(hl.MemoryType.Stack)
            part.vectorize(n, self.lanes).unroll(n).unroll(m)
            part.update().reorder(n, m, bit).vectorize(n, self.lanes).unroll(n).unroll(m)
