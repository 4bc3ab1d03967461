"""Indices of the largest or smallest elements along an axis."""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, around_axis, fix_output, whole_input
from netopt.kernels.parts.math import is_nan
from netopt.kernels.parts.parallel import split_rows
from netopt.numerics import Shape
from netopt.ops import ArgReduce


class ArgReduceKernel(PlainKernel[ArgReduce]):
    """Each lane finds the best of every so manieth element; then the best of the lanes. Bound by reading its input."""

    op = ArgReduce

    def argument_shapes(self, problem: Problem[ArgReduce], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        outer, size, inner = around_axis(problem.inputs[0].shape, problem.op.axis)
        return (outer, size, inner), (outer, inner)

    def build(self, problem: Problem[ArgReduce], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        shape, output = self.argument_shapes(problem, schedule, cpu)
        source = whole_input("source", shape, problem.inputs[0])
        # Across the axis where that is the last one: each lane has a part of the row.
        lanes = min(cpu.lanes, shape[1]) if shape[2] == 1 else 1
        steps = -(-shape[1] // lanes)
        i, lane, row, i_out = hl.Var("i"), hl.Var("lane"), hl.Var("row"), hl.Var("i_out")
        best, total, out = hl.Func("best"), hl.Func("total"), hl.Func("out")
        best[lane, i, row] = (source[i, lane, row], hl.cast(hl.Int(32), lane))
        if steps > 1:
            step = hl.RDom([(1, steps - 1)], "step")
            at = step.x * lanes + lane
            step.where(at < shape[1])
            # Clamped for the bounds of what is read alone; the loop does not go there.
            x = source[i, hl.min(at, shape[1] - 1), row]
            value, index = best[lane, i, row][0], best[lane, i, row][1]
            better = self._is_better(problem, x, value)
            best[lane, i, row] = (hl.select(better, x, value), hl.select(better, at, index))
        total[i, row] = (best[0, i, row][0], best[0, i, row][1])
        if lanes > 1:
            other = hl.RDom([(1, lanes - 1)], "other").x
            x, at = best[other, i, row][0], best[other, i, row][1]
            value, index = total[i, row][0], total[i, row][1]
            # Of equal elements the first.
            better = self._is_better(problem, x, value) | (~self._is_better(problem, value, x) & (at < index))
            total[i, row] = (hl.select(better, x, value), hl.select(better, at, index))
        out[i, row] = hl.cast(hl.Int(64), total[i, row][1])
        # --- schedule
        fix_output(out, output, problem.output)
        split_rows(out, row, shape[0], problem.inputs[0].elements, problem.threads)
        if lanes > 1:
            best.compute_at(out, i).bound(lane, 0, lanes).vectorize(lane)
            total.compute_at(out, i)
            if steps > 1:
                best.update().vectorize(lane)
        else:
            out.split(i, i_out, i, cpu.lanes, hl.TailStrategy.GuardWithIf).reorder(i, i_out, row).vectorize(i)
            best.compute_at(out, i_out).vectorize(i, cpu.lanes, hl.TailStrategy.GuardWithIf)
            total.compute_at(out, i_out).vectorize(i, cpu.lanes, hl.TailStrategy.GuardWithIf)
            if steps > 1:
                best.update().reorder(i, step.x).vectorize(i, cpu.lanes, hl.TailStrategy.GuardWithIf)
        return Pipeline(out, (source,))

    def _is_better(self, problem: Problem[ArgReduce], a: hl.Expr, b: hl.Expr) -> hl.Expr:
        """Whether a comes before b, whatever their places."""
        better = a > b if problem.op.function == "argmax" else a < b
        if problem.inputs[0].format.is_whole:
            return better
        return hl.strict_float(~is_nan(b) & (is_nan(a) | better))
