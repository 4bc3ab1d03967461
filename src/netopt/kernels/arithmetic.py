"""Elementwise arithmetic with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.broadcast import BroadcastKernel
from netopt.kernels.parts.math import flushed, maximum, minimum
from netopt.numerics import CodeFormat
from netopt.ops import Arithmetic

EXPRESSIONS: dict[str, Callable[[hl.Expr, hl.Expr], hl.Expr]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "prelu": lambda x, slope: flushed(hl.select(x > hl.f32(0.0), x, slope * x)),
    "maximum": lambda x, y: flushed(maximum(x, y)),
    "minimum": lambda x, y: flushed(minimum(x, y)),
}
# Those of numbers that codes stand for, in float64, where none is NaN or denormal.
OF_CODES: dict[str, Callable[[hl.Expr, hl.Expr], hl.Expr]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "prelu": lambda x, slope: hl.select(x > hl.f64(0.0), x, slope * x),
    "maximum": hl.max,
    "minimum": hl.min,
}
# Those of whole numbers that differ.
OF_WHOLES: dict[str, Callable[[hl.Expr, hl.Expr], hl.Expr]] = {
    "maximum": hl.max,
    "minimum": hl.min,
    "floor_divide": lambda x, y: _quotient(x, y, down=True),
    "truncate_divide": lambda x, y: _quotient(x, y, down=False),
}


def _quotient(x: hl.Expr, y: hl.Expr, *, down: bool) -> hl.Expr:
    """x / y rounded down, or towards 0. Halide's leaves a rest from 0 on; by 0 it is 0."""
    quotient = x / y
    rest = x - quotient * y
    one = hl.cast(x.type(), 1)
    if down:
        # A rest has the sign of y.
        return hl.select((y < 0) & (rest != 0), quotient - one, quotient) if x.type().is_int() else quotient
    if not x.type().is_int():
        return quotient
    # Halide's rest is not below 0: where x is, the quotient is one step too far from 0.
    step = hl.select(y > 0, one, -one)
    return hl.select((x < 0) & (rest != 0), quotient + step, quotient)


class ArithmeticKernel(BroadcastKernel[Arithmetic]):
    """Bound by memory."""

    op = Arithmetic

    def expression(self, problem: Problem[Arithmetic], *operands: hl.Expr) -> hl.Expr:
        function = problem.op.function
        if operands[0].type() == hl.Float(64):
            result = hl.strict_float(OF_CODES[function](*operands))
            return result if isinstance(problem.output.format, CodeFormat) else hl.f32(result)
        if problem.output.format.is_whole:
            return (EXPRESSIONS | OF_WHOLES)[function](*operands)
        # Division must be the correctly rounded one, not a product with an approximate reciprocal.
        return hl.strict_float(EXPRESSIONS[function](*operands))
