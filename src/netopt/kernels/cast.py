"""The same numbers in another format."""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.formats import Element, storage_type
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.broadcast import BroadcastKernel
from netopt.kernels.parts.math import is_nan
from netopt.numerics import BOOL
from netopt.ops import Cast


class CastKernel(BroadcastKernel[Cast]):
    """Bound by memory."""

    op = Cast

    def element(self, problem: Problem[Cast], *operands: Element) -> hl.Expr:
        x = operands[0].number
        if problem.output.format != BOOL:
            return hl.cast(storage_type(problem.output.format), x)
        is_true = x != hl.cast(x.type(), 0)
        if not problem.inputs[0].format.is_whole:
            is_true = hl.strict_float(is_true | is_nan(x))
        return hl.cast(hl.UInt(8), is_true)
