"""What kernels multiply: the number formats of both sides, and how terms are written so that Halide finds instructions.

The loops of dense layers and convolutions are the same for all of them (tiled_dense.py, tiled_conv2d.py); a product
says what is in the middle. Those of signs are in sign_products.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.epilogue import Result
from netopt.kernels.parts.panels import term_at
from netopt.kernels.parts.tile import TileSchedule
from netopt.kernels.parts.tile_sum import Sum, TileSum
from netopt.numerics import BFLOAT16, FLOAT32, NumberFormat
from netopt.ops import Op, TensorType


@dataclass(frozen=True, kw_only=True)
class Summation:
    """What the sums of a register tile are of, and where their terms are read.

    Attributes:
        suffix: makes the functions' names unique within a pipeline.
        others: coordinates of the sums besides output and position, fixed within a tile.
        terms: how many lie side by side.
        window: extents of further indices of the summation; each element has as many terms.
        schedule: the register tile.
        start: start(n, *others), the value that a sum begins with.
        weight: panels (*groups, outputs / panel, *taps, steps, panel), and neighbours if there are several.
        panel: outputs in a panel.
        source: what is multiplied by the weights.
        place: place(m, others, term, window): where in `source` a term of position m is.
        groups: how many of `others` are groups of the weights.
        taps: the indices of the weights' taps for those of the window; the same if not given.
        scales: of groups of terms (outputs / tile, groups, tile), where the weights have such.
    """

    suffix: str
    others: Sequence[hl.Var] = ()
    terms: int
    window: Sequence[int] = ()
    schedule: TileSchedule
    start: Callable[..., hl.Expr]
    weight: Source
    panel: int
    source: Source
    place: Callable[[hl.Expr, Sequence[hl.Expr], hl.Expr, Sequence[hl.Expr]], list[hl.Expr]]
    groups: int = 0
    taps: Callable[[Sequence[hl.Expr]], Sequence[hl.Expr]] = list
    scales: Source | None = None

    def weight_place(
        self,
        n: hl.Expr,
        others: Sequence[hl.Expr],
        step: hl.Expr,
        window: Sequence[hl.Expr] = (),
        neighbour: Sequence[hl.Expr] = (),
    ) -> list[hl.Expr]:
        """Where the weight of output n is."""
        within = [*neighbour, n % self.panel, step, *self.taps(window)]
        return [*within, n // self.panel, *others[: self.groups]]


@dataclass(frozen=True)
class Product(ABC):
    """A way to multiply and add.

    Attributes:
        lanes: sums in a vector.
        neighbours: terms, side by side in memory, that one instruction multiplies and adds to a sum.
        begins_with_bias: the sums are in the bias's numbers, so that it may be their first term.
        per_multiply_add: terms that take about as long as one multiply-add of floats.
    """

    lanes: int
    neighbours: ClassVar[int] = 1
    begins_with_bias: ClassVar[bool] = True
    per_multiply_add: ClassVar[int] = 1

    @property
    def zero(self) -> hl.Expr:
        """Nothing, in the type that is summed in."""
        return hl.f32(0.0)

    @property
    def zero_of_block(self) -> hl.Expr:
        """Nothing, in the type that blocks are summed in where a sum is cut into several."""
        return self.zero

    @property
    @abstractmethod
    def weight_format(self) -> NumberFormat:
        """The format of packed weights, as a pipeline reads them."""

    def source_type(self, type_: TensorType) -> TensorType:
        """The type of the other side as a pipeline reads it."""
        return type_

    def elements(self, terms: int) -> int:
        """Elements, as a pipeline reads them, of so many terms side by side."""
        return terms

    def stored_elements(self, terms: int) -> int:
        """Elements of so many terms of the other side as they are given, before `view`."""
        return terms

    def steps(self, terms: int) -> int:
        """Steps of a loop over so many terms."""
        return -(-self.elements(terms) // self.neighbours)

    def encoded(self, weights: Array) -> Array:
        """Constant weights (..., terms) as they are packed into panels: (..., elements)."""
        return weights

    def decoded(self, elements: Array, terms: int) -> Array:
        """The inverse of `encoded`."""
        return elements

    def result_of(self, terms: int) -> Result | None:
        """What is summed of so many terms, of the total that a tile has; None: the total."""
        return None

    def view(self, source: Array) -> Array:
        """The other side in memory as a pipeline reads it."""
        return source

    @abstractmethod
    def sums(self, summation: Summation) -> Sum:
        """The sums of a register tile, to be scheduled."""


@dataclass(frozen=True)
class TermByTerm(Product):
    """A product whose terms are written one by one, of an element of each side."""

    @abstractmethod
    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        """A term: an element of each, multiplied, in the type that is summed in."""

    def sums(self, summation: Summation) -> Sum:
        of, extents = summation, [self.steps(summation.terms), *summation.window]
        return TileSum(of.suffix, of.others, extents, of.schedule, self, of.start, partial(self.term, of))

    def term(
        self,
        summation: Summation,
        n: hl.Var,
        m: hl.Var,
        others: Sequence[hl.Var],
        indices: Sequence[hl.Expr],
    ) -> hl.Expr:
        """A term of a sum, for the indices of the summation."""
        neighbour = list(indices[: self.neighbours > 1])
        step, *window = indices[len(neighbour) :]
        elements = self.elements(summation.terms)
        at = term_at(step, neighbour[0], elements, self.neighbours) if neighbour else step
        where = summation.weight_place(n, others, step, window, neighbour)
        return self.multiply(summation.weight, where, summation.source, summation.place(m, others, at, window))


@dataclass(frozen=True)
class Floats(TermByTerm):
    """float32 by float32, where either may be stored in bfloat16.

    Attributes:
        stored: the format of the weights.
    """

    stored: NumberFormat = FLOAT32

    @property
    def weight_format(self) -> NumberFormat:
        return self.stored

    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        return weight[where] * source[there]


@dataclass(frozen=True)
class SignsAsFloats(Floats):
    """Weights of +1 and -1, in memory as the floats that they are, on floats."""

    def encoded(self, weights: Array) -> Array:
        return weights.astype(np.float32)

    def decoded(self, elements: Array, terms: int) -> Array:
        return elements.astype(np.int8)


@dataclass(frozen=True)
class PairsOfBFloat16(TermByTerm):
    """bfloat16 by bfloat16, summed in float32: one instruction multiplies two and adds both products.

    Attributes:
        has_instruction: the CPU has it; elsewhere the numbers are multiplied as floats, in the same order of memory.
    """

    has_instruction: bool
    neighbours: ClassVar[int] = 2

    @property
    def weight_format(self) -> NumberFormat:
        return BFLOAT16

    def multiply(self, weight: Source, where: Sequence[hl.Expr], source: Source, there: Sequence[hl.Expr]) -> hl.Expr:
        if self.has_instruction:
            one, other = (hl.reinterpret(hl.BFloat(16), e) for e in (weight.param[where], source.param[there]))
            return hl.f32(one) * hl.f32(other)
        return weight[where] * source[there]


def product_of_floats(problem: Problem[Op], cpu: Cpu) -> Product:
    """The product of the first two inputs, floating numbers."""
    source, weight = problem.inputs[:2]
    if source.format == weight.format == BFLOAT16:
        return PairsOfBFloat16(cpu.lanes, cpu.has_bfloat16)
    return Floats(cpu.lanes, weight.format)
