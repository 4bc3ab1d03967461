"""Comparisons with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.broadcast import BroadcastKernel
from netopt.kernels.parts.math import is_nan
from netopt.ops import Compare

EXPRESSIONS: dict[str, Callable[[hl.Expr, hl.Expr], hl.Expr]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


class CompareKernel(BroadcastKernel[Compare]):
    """Bound by memory: a byte an element is written."""

    op = Compare

    def expression(self, problem: Problem[Compare], *operands: hl.Expr) -> hl.Expr:
        holds = EXPRESSIONS[problem.op.function](*operands)
        if not problem.inputs[0].format.is_whole:
            # By the bits: fast math takes it for decided that nothing is NaN.
            unordered = is_nan(operands[0]) | is_nan(operands[1])
            holds = (holds | unordered) if problem.op.function == "ne" else (holds & ~unordered)
            holds = hl.strict_float(holds)
        return hl.cast(hl.UInt(8), holds)
