"""Elementwise arithmetic with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.formats import Element
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.broadcast import BroadcastKernel
from netopt.kernels.parts.codes import Elementwise
from netopt.kernels.parts.math import flushed, maximum, minimum
from netopt.kernels.parts.units import Units
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


# Those of numbers on codes: as the reference computes them in float64, and where they are exact in whole numbers.
ON_CODES = {
    "add": Elementwise(operator.add, operator.add, operator.add),
    "sub": Elementwise(operator.sub, operator.sub, operator.sub),
    "mul": Elementwise(operator.mul, operator.mul, operator.mul),
    "div": Elementwise(operator.truediv, operator.truediv),
    "prelu": Elementwise(
        EXPRESSIONS["prelu"],
        lambda x, slope: hl.select(x > hl.f64(0.0), x, slope * x),
        lambda x, slope: x.where_positive(slope * x),
    ),
    "maximum": Elementwise(EXPRESSIONS["maximum"], maximum, Units.larger),
    "minimum": Elementwise(EXPRESSIONS["minimum"], minimum, Units.smaller),
}


class ArithmeticKernel(BroadcastKernel[Arithmetic]):
    """Bound by memory."""

    op = Arithmetic

    def element(self, problem: Problem[Arithmetic], *operands: Element) -> hl.Expr:
        function, written = problem.op.function, problem.output.format
        if written.is_whole:
            return (EXPRESSIONS | OF_WHOLES)[function](*(operand.number for operand in operands))
        return ON_CODES[function].stored(operands, written)

    def bytes_computed(self, problem: Problem[Arithmetic]) -> int:
        written = problem.output.format
        if written.is_whole:
            return 4
        return ON_CODES[problem.op.function].bytes([type_.format for type_ in problem.inputs], written)
