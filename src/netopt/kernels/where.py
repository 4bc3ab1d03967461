"""One of two inputs for each element, with broadcasting."""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.broadcast import BroadcastKernel
from netopt.ops import Where


class WhereKernel(BroadcastKernel[Where]):
    """Bound by memory."""

    op = Where

    def expression(self, problem: Problem[Where], *operands: hl.Expr) -> hl.Expr:
        condition, one, other = operands
        return hl.select(condition != 0, one, other)
