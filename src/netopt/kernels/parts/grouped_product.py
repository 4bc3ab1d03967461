"""Products with weights of few bits that have a scale for each group of terms: exact sums of a group, then its scale.

floats by codes    each code is made a float beside its multiply-add
codes by codes     pairs of 16-bit numbers, which one instruction multiplies and adds in 32 bits: exact

The other side is read as it lies in memory where that is what is multiplied, and its terms fill all groups. Else a
copy is made of it first, widened, with zeros behind the last term.
"""

from __future__ import annotations

from dataclasses import dataclass

import halide as hl
import numpy as np

from netopt.kernels.machine.formats import Array, storage_type
from netopt.kernels.parts.product import Product, Summation
from netopt.kernels.parts.tile import Band
from netopt.kernels.parts.tile_sum import Sum
from netopt.numerics import UINT8, CodeFormat, FixedPoint, Grouped, NumberFormat

# Codes of 4 bits are packed with this added, two in a byte.
_HALF = 8
# Terms that a copy of all rows may have, to be made once and not for each tile.
_SMALL = 2**15


@dataclass(frozen=True)
class GroupedProduct(Product):
    """Floats, or codes of one step, by grouped weights.

    A byte has two terms of 4 bits, a step apart: that of the first `neighbours` terms is in its lower bits.

    Attributes:
        weights: their format.
        source: that of the other side.
    """

    weights: Grouped
    source: NumberFormat

    @property
    def neighbours(self) -> int:  # type: ignore[override]
        return 2 if self.is_of_codes else 1

    @property
    def is_of_codes(self) -> bool:
        """Whether whole numbers are multiplied."""
        return isinstance(self.source, CodeFormat)

    @property
    def halves(self) -> int:
        """Terms in a byte."""
        return 8 // self.weights.bits

    @property
    def number_type(self) -> hl.Type:
        """What of the other side is multiplied."""
        return hl.Int(16) if self.is_of_codes else hl.Float(32)

    @property
    def weight_format(self) -> NumberFormat:
        return UINT8 if self.halves == 2 else FixedPoint(8, 0)

    @property
    def group_steps(self) -> int:
        """Steps of a group."""
        return self.weights.group // (self.neighbours * self.halves)

    def steps(self, terms: int) -> int:
        return self.weights.groups(terms) * self.group_steps

    def elements(self, terms: int) -> int:
        return self.neighbours * self.steps(terms)

    def encoded(self, weights: Array) -> Array:
        """Codes (..., terms) in bytes; those behind the last term are 0."""
        terms = weights.shape[-1]
        padding = self.weights.groups(terms) * self.weights.group - terms
        padded = np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, padding)])
        if self.halves == 1:
            return padded
        parts = (padded + _HALF).astype(np.uint8).reshape(*weights.shape[:-1], -1, 2, self.neighbours)
        return (parts[..., 0, :] | parts[..., 1, :] << 4).reshape(*weights.shape[:-1], -1)

    def decoded(self, elements: Array, terms: int) -> Array:
        if self.halves == 2:
            bytes_ = elements.reshape(*elements.shape[:-1], -1, 1, self.neighbours)
            parts = np.concatenate([bytes_ & 15, bytes_ >> 4], -2).astype(np.int8) - np.int8(_HALF)
            elements = parts.reshape(*elements.shape[:-1], -1)
        return elements[..., :terms]

    def sums(self, summation: Summation) -> Sum:
        assert not summation.others and not summation.window, "of dense layers"
        return GroupSum(summation, self)

    # --- expressions

    def code(self, byte: hl.Expr, half: hl.Expr) -> hl.Expr:
        """One of the codes in a byte of packed weights, in 8 bits."""
        if self.halves == 1:
            return byte
        shifted = byte >> hl.cast(hl.UInt(8), 4 * half)
        return hl.reinterpret(hl.Int(8), (shifted & hl.cast(hl.UInt(8), 15)) - hl.cast(hl.UInt(8), _HALF))

    def number(self, stored: hl.Expr) -> hl.Expr:
        """What is multiplied, of an element of the other side."""
        if not isinstance(self.source, CodeFormat):
            return stored
        return hl.i16(stored) - hl.i16(self.source.zero) if self.source.zero else hl.i16(stored)

    def multiply(self, code: hl.Expr, number: hl.Expr) -> hl.Expr:
        """A term of the sum of a group."""
        if self.is_of_codes:
            return hl.i32(hl.i16(code)) * hl.i32(number)
        return hl.f32(hl.i32(code)) * number


class GroupSum(Sum):
    """total[n, m]: start + the sum over all groups of the group's scale times `part`, the sum of its terms."""

    def __init__(self, summation: Summation, product: GroupedProduct) -> None:
        """Define the sum."""
        # --- algorithm
        of, scales, self.product, self.count = summation, summation.scales, product, summation.terms
        assert scales is not None
        self.tile = of.schedule.vectors * product.lanes
        n, m, g = self.n, self.m, self.g = hl.Var("n"), hl.Var("m"), hl.Var("g")
        self.numbers = self._numbers(of)
        self.terms = hl.RDom([(0, product.neighbours), (0, product.halves), (0, product.group_steps)], f"k{of.suffix}")
        neighbour, half, within = self.terms.x, self.terms.y, self.terms.z
        step = g * product.group_steps + within
        where = of.weight_place(n, [], step, [], [neighbour] if product.neighbours > 1 else [])
        term = (step * product.halves + half) * product.neighbours + neighbour
        number = self.numbers[term, m] if self.numbers is not None else of.source.param[of.place(m, [], term, [])]
        self.part, self.total = hl.Func(f"part{of.suffix}"), hl.Func(f"total{of.suffix}")
        self.part[n, m, g] = hl.i32(0) if product.is_of_codes else hl.f32(0.0)
        self.part[n, m, g] += product.multiply(product.code(of.weight.param[where], half), number)
        self.group = hl.RDom([(0, product.weights.groups(of.terms))], f"group{of.suffix}").x
        self.step = self.group
        scale = scales[[n % self.tile, self.group, n // self.tile]]
        scaled = scale * hl.f32(self.part[n, m, self.group])
        if isinstance(product.source, CodeFormat) and product.source.steps[0] != 1.0:
            scaled = scaled * hl.f32(product.source.steps[0])
        self.total[n, m] = of.start(n)
        self.total[n, m] += scaled

    def _numbers(self, of: Summation) -> hl.Func | None:
        """A copy of what the weights are multiplied by, as it is multiplied; None where it lies so in memory."""
        product = self.product
        fills_groups = of.terms % product.weights.group == 0
        is_zero_0 = not isinstance(product.source, CodeFormat) or product.source.zero == 0
        if fills_groups and is_zero_0 and storage_type(product.source) == product.number_type:
            return None
        numbers, k, m = hl.Func(f"numbers{of.suffix}"), hl.Var("k"), self.m
        there = of.place(m, [], k if fills_groups else hl.min(k, of.terms - 1), [])
        number = product.number(of.source.param[there]) if product.is_of_codes else of.source[there]
        numbers[k, m] = number if fills_groups else hl.select(k < of.terms, number, hl.cast(number.type(), 0))
        return numbers

    def schedule(self, consumer: hl.Func, rows: hl.Var | hl.RVar, band: Band) -> None:
        """See `Sum`."""
        # --- schedule
        n, m, tile, lanes = self.n, self.m, self.tile, self.product.lanes
        for func in (self.total, self.part):
            func.store_in(hl.MemoryType.Stack).bound_extent(n, tile).align_bounds(n, tile)
            func.vectorize(n, lanes).unroll(n).unroll(m)
        self.total.compute_at(consumer, rows)
        self.total.update().reorder(n, m, self.group).vectorize(n, lanes).unroll(n).unroll(m)
        self.part.compute_at(self.total, self.group)
        neighbour, half, step = self.terms.x, self.terms.y, self.terms.z
        update = self.part.update().reorder(neighbour, n, m, half, step)
        update.vectorize(n, lanes).unroll(n).unroll(m).unroll(half)
        if self.product.neighbours > 1:
            # Halide makes one instruction of the products that are added together.
            update.atomic().vectorize(neighbour)
        if self.numbers is not None:
            k, of = self.numbers.args()[0], self.product.weights
            self.numbers.store_in(hl.MemoryType.Stack).vectorize(k, 16, hl.TailStrategy.GuardWithIf)
            is_small = band.rows * of.groups(self.count) * of.group <= _SMALL
            _ = self.numbers.compute_root() if is_small else self.numbers.compute_at(consumer, rows)
