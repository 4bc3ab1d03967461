"""Sums of products of unsigned by signed bytes, for CPUs that add two of them in 16 bits: AVX2's vpmaddubsw."""

from __future__ import annotations

import halide as hl

from netopt.kernels.parts.panels import term_at
from netopt.kernels.parts.product import Summation
from netopt.kernels.parts.tile import Band
from netopt.kernels.parts.tile_sum import Sum

# Terms of a step: two sums of two.
_TOGETHER = 4


class PairSum(Sum):
    """As `TileSum`: `pair` adds two products in 16 bits, which must hold them, `total` two pairs in 32 bits."""

    def __init__(self, of: Summation, lanes: int) -> None:
        """Define the sum."""
        # --- algorithm
        assert of.schedule.blocks == 1
        self.s, self.lanes, elements = of.schedule, lanes, of.terms
        n, m, j, k = self.n, self.m, self.j, self.k = hl.Var("n"), hl.Var("m"), hl.Var("j"), hl.Var("k")
        place = [hl.Var(f"place{i}") for i in range(len(of.window))]
        of_pair = hl.RDom([(0, 2)], f"pair_k{of.suffix}").x
        extents = [2, -(-elements // _TOGETHER), *of.window]
        domain = hl.RDom([(0, extent) for extent in extents], f"k{of.suffix}")
        self.of_pair, self.of_step = of_pair, domain[0]
        self.along = [domain[i] for i in range(1, len(extents))]
        self.step = self.along[0]
        self.total, self.pair = hl.Func(f"total{of.suffix}"), hl.Func(f"pair{of.suffix}")
        neighbour = 2 * j + of_pair
        x = of.source.param[of.place(m, of.others, term_at(k, neighbour, elements, _TOGETHER), place)]
        w = of.weight.param[of.weight_place(n, of.others, k, place, [neighbour])]
        at = [j, n, m, *of.others, k, *place]
        self.pair[at] = hl.i16(0)
        # It never saturates: this is what Halide knows the instruction by.
        self.pair[at] = hl.saturating_add(self.pair[at], hl.widening_mul(x, w))
        self.total[[n, m, *of.others]] = of.start(n, *of.others)
        self.total[[n, m, *of.others]] += hl.i32(self.pair[[domain[0], n, m, *of.others, *self.along]])

    def schedule(self, consumer: hl.Func, rows: hl.Var | hl.RVar, band: Band) -> None:
        """See `Sum`."""
        # --- schedule
        n, m, tile, lane = self.n, self.m, self.s.vectors * self.lanes, hl.Var("lane")
        self.total.compute_at(consumer, rows).bound_extent(n, tile).align_bounds(n, tile).vectorize(n, self.lanes)
        self.total.store_in(hl.MemoryType.Stack).unroll(n).unroll(m)
        update = self.total.update().split(n, n, lane, self.lanes)
        update.reorder(self.of_step, lane, n, m, *self.along).unroll(n).unroll(m)
        update.atomic().vectorize(self.of_step).vectorize(lane)
        if self.s.unroll > 1:
            update.unroll(self.step, self.s.unroll, hl.TailStrategy.GuardWithIf)
        self.pair.compute_at(self.total, n).bound_extent(self.j, 2).vectorize(self.j).vectorize(n)
        pair = self.pair.update().reorder(self.of_pair, self.j, n, m)
        pair.atomic(True).vectorize(self.of_pair).vectorize(self.j).vectorize(n)
