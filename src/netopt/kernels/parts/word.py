"""Signs that a kernel computes, packed 32 to a word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import halide as hl


class Word:
    """func[w, *coordinates]: a word whose bit i is the sign bit of difference(32 w + i), an int32, for i < count.

    A comparison in its place makes Halide 21 crash where it trims loops, and so do serial loops around it.
    """

    def __init__(
        self,
        name: str,
        difference: Callable[[hl.Expr], hl.Expr],
        coordinates: Sequence[hl.Var],
        lanes: int,
        count: int = 32,
    ) -> None:
        """Define the word; the first of the coordinates is that of positions within a register tile."""
        # --- algorithm
        self.w, self.first, self.func = hl.Var("w"), coordinates[0], hl.Func(name)
        bit = hl.RDom([(0, count)], f"{name}_bit").x
        self.func[[self.w, *coordinates]] = hl.u32(0)
        is_negative = hl.cast(hl.UInt(32), difference(self.w * 32 + bit)) >> 31
        self.func[[self.w, *coordinates]] += is_negative << hl.cast(hl.UInt(32), bit)
        # --- schedule
        outside, inside = hl.RVar("bit_outside"), hl.RVar("bit_inside")
        update = self.func.update().split(bit, outside, inside, lanes, hl.TailStrategy.GuardWithIf)
        update.reorder(inside, outside, self.w, *coordinates).atomic().vectorize(inside).unroll(outside)
        self.func.store_in(hl.MemoryType.Stack)

    def schedule(self, consumer: hl.Func, loop: hl.Var | hl.RVar) -> None:
        """Compute for each turn of the consumer's loop, of a whole register tile."""
        for stage in (self.func.compute_at(consumer, loop), self.func.update()):
            stage.unroll(self.w).unroll(self.first)
