"""Layer normalization: mean, then the mean of squared differences, then the scaling; each in vectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import stored
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.parallel import split_rows
from netopt.kernels.parts.rows import reduce_rows, row_sum
from netopt.numerics import Shape
from netopt.ops import LayerNorm

# A row up to this size is shifted by its first element: where that is an outlier, it is at most 16 deviations away.
_SHORT = 256


def _shift(row: Callable[[int], hl.Expr], size: int) -> hl.Expr:
    """An element near the mean: the first, or of a long row that between two others of three."""
    first, middle, last = row(0), row(size // 2), row(size - 1)
    if size <= _SHORT:
        return first
    return hl.max(hl.min(first, middle), hl.min(hl.max(first, middle), last))


class LayerNormKernel(PlainKernel[LayerNorm]):
    """Two passes over the row for the statistics: the one-pass formula loses all digits where mean^2 >> variance."""

    op = LayerNorm

    def argument_shapes(self, problem: Problem[LayerNorm], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        shape = problem.output.shape
        size = math.prod(shape[-problem.op.axes :])
        matrix = (problem.output.elements // size, size)
        return matrix, (size,), (size,), matrix

    def build(self, problem: Problem[LayerNorm], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        shapes = self.argument_shapes(problem, schedule, cpu)
        rows, size = shapes[0]
        x, weight, bias = (
            whole_input(name, shape, type_)
            for name, shape, type_ in zip(("x", "weight", "bias"), shapes, problem.inputs, strict=False)
        )
        k, row, out, sum_ = hl.Var("k"), hl.Var("row"), hl.Func("out"), row_sum(size, cpu.lanes)
        shift, mean, factor = hl.Func("shift"), hl.Func("mean"), hl.Func("factor")
        share = hl.cast(sum_.type, hl.f64(1.0 / size))
        shift[row] = _shift(lambda at: x[at, row], size)

        def shifted(k: hl.Expr, row: hl.Var) -> hl.Expr:
            return hl.strict_float(x[k, row] - shift[row])

        total = reduce_rows("total", size, cpu.lanes, shifted, sum_)
        mean[row] = hl.f32(total.result[row] * share)

        def centred(k: hl.Expr, row: hl.Var) -> hl.Expr:
            return hl.strict_float(shifted(k, row) - mean[row])

        squares = reduce_rows("squares", size, cpu.lanes, lambda k, row: centred(k, row) * centred(k, row), sum_)
        variance = hl.f32(squares.result[row] * share)
        factor[row] = hl.f32(1.0) / hl.sqrt(variance + hl.f32(problem.op.epsilon))
        out[k, row] = stored(centred(k, row) * factor[row] * weight[k] + bias[k], problem.output.format)
        # --- schedule
        fix_output(out, shapes[0], problem.output)
        split_rows(out, row, rows, problem.output.elements, problem.threads)
        out.vectorize(k, cpu.lanes, hl.TailStrategy.GuardWithIf)
        for reduction in (total, squares):
            reduction.compute_at(out, row, cpu.lanes)
        for func in (shift, mean, factor):
            func.compute_at(out, row)
        return Pipeline(out, (x, weight, bias))
