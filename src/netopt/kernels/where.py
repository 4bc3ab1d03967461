"""One of two inputs for each element, with broadcasting."""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.formats import Element
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.broadcast import BroadcastKernel
from netopt.kernels.parts.codes import bytes_moved, moved
from netopt.ops import Where


class WhereKernel(BroadcastKernel[Where]):
    """Bound by memory."""

    op = Where

    def element(self, problem: Problem[Where], *operands: Element) -> hl.Expr:
        condition, *values = operands
        one, other = (moved(value, problem.output.format) for value in values)
        return hl.select(condition.stored != 0, one, other)

    def bytes_computed(self, problem: Problem[Where]) -> int:
        return max(bytes_moved(type_.format, problem.output.format) for type_ in problem.inputs[1:])
