"""Comparisons with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.formats import Element
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

    def element(self, problem: Problem[Compare], *operands: Element) -> hl.Expr:
        x, y = (operand.number for operand in operands)
        holds = EXPRESSIONS[problem.op.function](x, y)
        if not problem.inputs[0].format.is_whole:
            # By the bits: fast math takes it for decided that nothing is NaN.
            unordered = is_nan(x) | is_nan(y)
            holds = (holds | unordered) if problem.op.function == "ne" else (holds & ~unordered)
            holds = hl.strict_float(holds)
        return hl.cast(hl.UInt(8), holds)
