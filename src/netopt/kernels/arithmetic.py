"""Elementwise arithmetic with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.broadcast import BroadcastKernel
from netopt.kernels.parts.math import maximum, minimum
from netopt.ops import Arithmetic

EXPRESSIONS: dict[str, Callable[[hl.Expr, hl.Expr], hl.Expr]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "prelu": lambda x, slope: hl.select(x > hl.f32(0.0), x, slope * x),
    "maximum": maximum,
    "minimum": minimum,
}
# Those of whole numbers that differ.
OF_WHOLES: dict[str, Callable[[hl.Expr, hl.Expr], hl.Expr]] = {"maximum": hl.max, "minimum": hl.min}


class ArithmeticKernel(BroadcastKernel[Arithmetic]):
    """Bound by memory."""

    op = Arithmetic

    def expression(self, problem: Problem[Arithmetic], *operands: hl.Expr) -> hl.Expr:
        function = problem.op.function
        if problem.output.format.is_whole:
            return OF_WHOLES.get(function, EXPRESSIONS[function])(*operands)
        # Division must be the correctly rounded one, not a product with an approximate reciprocal.
        return hl.strict_float(EXPRESSIONS[function](*operands))
