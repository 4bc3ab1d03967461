"""Reductions: over the last axis with vectors along it, over other axes with vectors across them."""

from __future__ import annotations

import math
import operator

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.math import flushed, maximum, minimum
from netopt.kernels.parts.parallel import split_rows
from netopt.kernels.parts.rows import SUM, Reduction, gather, reduce_rows
from netopt.numerics import Shape
from netopt.ops import Reduce

REDUCTIONS: dict[str, Reduction] = {
    "sum": SUM,
    "mean": SUM,
    "max": Reduction(maximum, -math.inf, hl.Float(32)),
    "min": Reduction(minimum, math.inf, hl.Float(32)),
    "prod": Reduction(operator.mul, 1.0, hl.Float(32)),
}


class ReduceKernel(PlainKernel[Reduce]):
    """Bound by reading its input. A mean is a sum multiplied by 1 / size."""

    op = Reduce

    def argument_shapes(self, problem: Problem[Reduce], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        shape, axes = problem.inputs[0].shape, problem.op.axes
        size, inner = math.prod(shape[axis] for axis in axes), math.prod(shape[axes[-1] + 1 :])
        outer = problem.inputs[0].elements // (size * inner)
        return ((outer, size), (outer,)) if inner == 1 else ((outer, size, inner), (outer, inner))

    def build(self, problem: Problem[Reduce], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if problem.inputs[0].format.is_whole:
            return self._of_wholes(problem, schedule, cpu)
        # --- algorithm
        shape, output = self.argument_shapes(problem, schedule, cpu)
        source, out, row, i = whole_input("source", shape), hl.Func("out"), hl.Var("row"), hl.Var("i")
        reduction = REDUCTIONS[problem.op.function]

        def end(x: hl.Expr) -> hl.Expr:
            total = x * hl.f64(1.0 / shape[1]) if problem.op.function == "mean" else x
            return flushed(hl.f32(total))

        if len(shape) == 2:
            rows = reduce_rows("total", shape[1], cpu.lanes, lambda k, row: source[k, row], reduction)
            out[row] = end(rows.result[row])
            # --- schedule
            split_rows(out, row, shape[0], problem.inputs[0].elements, problem.threads)
            rows.compute_at(out, row, cpu.lanes)
        else:
            total, i_out = hl.Func("total"), hl.Var("i_out")
            loops = gather(total, (i, row), shape[1], lambda k: source[i, k, row], reduction)
            out[i, row] = end(hl.Expr(total[i, row]))
            # --- schedule
            out.split(i, i_out, i, cpu.lanes, hl.TailStrategy.GuardWithIf).reorder(i, i_out, row).vectorize(i)
            split_rows(out, row, shape[0], problem.inputs[0].elements, problem.threads)
            total.compute_at(out, i_out).vectorize(i, cpu.lanes, hl.TailStrategy.GuardWithIf)
            for number in range(len(loops)):
                total.update(number).vectorize(i, cpu.lanes, hl.TailStrategy.GuardWithIf)
        fix_output(out, output)
        return Pipeline(out, (source,))

    def _of_wholes(self, problem: Problem[Reduce], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        shape, output = self.argument_shapes(problem, schedule, cpu)
        source = whole_input("source", shape, problem.inputs[0])
        type_, function = source.param.type(), problem.op.function
        start = {"sum": hl.cast(type_, 0), "prod": hl.cast(type_, 1), "max": type_.min(), "min": type_.max()}[function]
        combine = {"sum": operator.add, "prod": operator.mul, "max": hl.max, "min": hl.min}[function]
        out, row, inner = hl.Func("out"), hl.Var("row"), [hl.Var("i")][: len(shape) - 2]
        along = hl.RDom([(0, shape[1])], "along").x
        out[[*inner, row]] = start
        out[[*inner, row]] = combine(hl.Expr(out[[*inner, row]]), source[[*inner, along, row]])
        # --- schedule
        fix_output(out, output, problem.output)
        if inner:
            out.update().reorder(inner[0], along, row).vectorize(inner[0], cpu.lanes, hl.TailStrategy.GuardWithIf)
        return Pipeline(out, (source,))
