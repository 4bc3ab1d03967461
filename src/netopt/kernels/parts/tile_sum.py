"""Sums over a register tile: they stay in registers from the first term to the last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import halide as hl

from netopt.kernels.parts.tile import Band, TileSchedule

# Elements that are converted at once.
_CONVERTED = 32
# term(n, m, others, indices): what is added for these indices of the summation, innermost first.
Term = Callable[[hl.Var, hl.Var, Sequence[hl.Var], Sequence[hl.Expr]], hl.Expr]


class Accumulator(Protocol):
    """What a sum needs to know of its product; see product.py."""

    @property
    def lanes(self) -> int:
        """Sums in a vector."""

    @property
    def neighbours(self) -> int:
        """Terms that one instruction multiplies and adds to a sum."""

    @property
    def zero(self) -> hl.Expr:
        """Nothing, in the type of the sums."""

    @property
    def zero_of_block(self) -> hl.Expr:
        """Nothing, in the type of the sums of blocks, where a sum is cut into several."""


class Sum(ABC):
    """For one band: `total[n, m, *others]`, output n of position m of a register tile."""

    total: hl.Func
    step: hl.RVar  # the loop of the total's update along the innermost coordinate of the weights' panels
    converted: hl.Func | None = None  # what is multiplied by the weights, where it is not read as it is in memory

    @abstractmethod
    def schedule(self, consumer: hl.Func, rows: hl.Var | hl.RVar, band: Band) -> None:
        """Compute for each turn of the consumer's loop over `rows`."""

    def convert_at(self, consumer: hl.Func, positions: hl.Var | hl.RVar, extent: int) -> None:
        """Convert what is multiplied for each turn of the consumer's loop over `positions`, if it is to be converted.

        Without this call it is converted at each use. At least `extent` of its elements lie side by side.
        """
        # --- schedule
        if self.converted is not None:
            inner = self.converted.args()[0]
            self.converted.compute_at(consumer, positions).store_in(hl.MemoryType.Stack)
            self.converted.vectorize(inner, min(_CONVERTED, 1 << extent.bit_length() - 1), hl.TailStrategy.ShiftInwards)

    def prefetch(self, weight: hl.ImageParam, ahead: int) -> None:
        """Prefetch packed weights `ahead` turns of the loop along the inputs before their use.

        Behind the end of this loop lie the weights that are used next; beyond those a prefetch does no harm.
        """
        # By name: a parameter in the first place is taken for a function, which is inlined and has no memory.
        options = {"image": weight, "at": self.step, "from": self.step, "offset": ahead}
        self.total.update().prefetch(**options, strategy=hl.PrefetchBoundStrategy.NonFaulting)


class TileSum(Sum):
    """`total[n, m, *others]` = start + the sum of terms over the indices `extents`, innermost first.

    In one block the sum of a register tile stays in registers from the first term to the last. In several, cut along
    the first index, `part` is the register tile's sum over one block, and `total`, in the first-level cache, gathers
    the parts.
    """

    def __init__(
        self,
        suffix: str,
        others: Sequence[hl.Var],
        extents: Sequence[int],
        s: TileSchedule,
        product: Accumulator,
        start: Callable[..., hl.Expr],
        term: Term,
    ) -> None:
        """Define the sum.

        Args:
            suffix: makes the functions' names unique within a pipeline.
            others: further coordinates of the output, fixed within a tile.
            extents: of the summation: first the steps along the inputs, which `s.blocks` divides.
            s: the schedule.
            product: what is summed, and in what.
            start: start(n, *others), the value that the sum begins with.
            term: one term. Before the step its indices have the number of the neighbour, where there are such.
        """
        # --- algorithm
        self.n, self.m, self.block, self.others = hl.Var("n"), hl.Var("m"), hl.Var("block"), list(others)
        self.s, self.lanes = s, product.lanes
        steps, *window = extents
        steps //= s.blocks
        together = [product.neighbours] if product.neighbours > 1 else []
        domain = hl.RDom([(0, extent) for extent in (*together, steps, *window)], f"k{suffix}")
        indices = [domain[i] for i in range(len(together) + len(extents))]
        self.together, self.along = indices[: len(together)], indices[len(together) :]
        self.step = self.along[0]
        self.total, self.part = hl.Func(f"total{suffix}"), hl.Func(f"part{suffix}")
        n, m, block = self.n, self.m, self.block
        self.total[[n, m, *others]] = start(n, *others)
        if s.blocks == 1:
            self.total[[n, m, *others]] += term(n, m, others, indices)
        else:
            self.blocks = hl.RDom([(0, s.blocks)], f"blocks{suffix}").x
            shifted = [*self.together, block * steps + self.step, *self.along[1:]]
            self.part[[n, m, *others, block]] = product.zero_of_block
            self.part[[n, m, *others, block]] += term(n, m, others, shifted)
            part = hl.Expr(self.part[[n, m, *others, self.blocks]])
            self.total[[n, m, *others]] += hl.cast(product.zero.type(), part)

    def schedule(self, consumer: hl.Func, rows: hl.Var | hl.RVar, band: Band) -> None:
        """See `Sum`."""
        # --- schedule
        n, m, tile = self.n, self.m, self.s.vectors * self.lanes
        self.total.compute_at(consumer, rows).bound_extent(n, tile).align_bounds(n, tile).vectorize(n, self.lanes)
        self.total.store_in(hl.MemoryType.Stack)
        update = self.total.update()
        if self.s.blocks == 1:
            self.total.unroll(n).unroll(m)
            self._keep_in_registers(update)
            return
        m_out, m_in = hl.Var("m_out"), hl.Var("m_in")
        update.split(m, m_out, m_in, band.tile, hl.TailStrategy.RoundUp)
        update.reorder(n, m_in, m_out, self.blocks, *self.others)
        update.vectorize(n, self.lanes).unroll(n).unroll(m_in)
        self.part.compute_at(self.total, m_out).bound_extent(n, tile).vectorize(n, self.lanes).unroll(n).unroll(m)
        self._keep_in_registers(self.part.update())

    def _keep_in_registers(self, update: hl.Stage) -> None:
        update.reorder(*self.together, self.n, self.m, *self.along)
        update.vectorize(self.n, self.lanes).unroll(self.n).unroll(self.m)
        for index in self.together:
            # Halide makes one instruction of the products that are added together.
            update.atomic().vectorize(index)
        if self.s.unroll > 1:
            update.unroll(self.step, self.s.unroll, hl.TailStrategy.GuardWithIf)
