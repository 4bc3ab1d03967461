"""Layer normalization: mean, then the mean of squared differences, then the scaling; each in vectors."""

from __future__ import annotations

import math

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import stored
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.parallel import split_rows
from netopt.kernels.parts.rows import reduce_rows
from netopt.numerics import Shape
from netopt.ops import LayerNorm


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
        share = hl.f32(1.0 / size)
        total = reduce_rows("total", size, cpu.lanes, lambda k, row: x[k, row], lambda a, b: a + b, 0.0)
        mean = hl.Func("mean")
        r = hl.Var("row")
        mean[r] = total.result[r] * share
        squares = reduce_rows(
            "squares",
            size,
            cpu.lanes,
            lambda k, row: (x[k, row] - mean[row]) * (x[k, row] - mean[row]),
            lambda a, b: a + b,
            0.0,
        )
        factor = hl.Func("factor")
        factor[r] = hl.f32(1.0) / hl.sqrt(squares.result[r] * share + hl.f32(problem.op.epsilon))
        k, row, out = hl.Var("k"), hl.Var("row"), hl.Func("out")
        out[k, row] = stored((x[k, row] - mean[row]) * factor[row] * weight[k] + bias[k], problem.output.format)
        # --- schedule
        fix_output(out, shapes[0], problem.output)
        split_rows(out, row, rows, problem.output.elements, problem.threads)
        out.vectorize(k, cpu.lanes, hl.TailStrategy.GuardWithIf)
        for reduction in (total, squares):
            reduction.compute_at(out, row, cpu.lanes)
        for func in (mean, factor):
            func.compute_at(out, row)
        return Pipeline(out, (x, weight, bias))
