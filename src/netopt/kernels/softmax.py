"""Softmax and log-softmax: maximum, sum of exponentials, quotient; each in vectors."""

from __future__ import annotations

import math

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Source
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, around_axis, fix_output, whole_input
from netopt.kernels.parts.math import at_least, exp, log
from netopt.kernels.parts.parallel import split_rows
from netopt.kernels.parts.rows import SUM, Reduction, gather, reduce_rows, row_sum
from netopt.numerics import Shape
from netopt.ops import Softmax

_MAXIMUM = Reduction(at_least, -math.inf, hl.Float(32))

# A row up to this size stays in the first-level cache while its sum is taken.
_ROW_BYTES = 16 * 1024


class SoftmaxKernel(PlainKernel[Softmax]):
    """Along the last axis with vectors along it; along another axis with vectors across it."""

    op = Softmax

    def argument_shapes(self, problem: Problem[Softmax], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        outer, size, inner = around_axis(problem.output.shape, problem.op.axis)
        return ((outer, size) if inner == 1 else (outer, size, inner),) * 2

    def build(self, problem: Problem[Softmax], schedule: Schedule, cpu: Cpu) -> Pipeline:
        shape, _ = self.argument_shapes(problem, schedule, cpu)
        build = _along_last_axis if len(shape) == 2 else _across
        source = whole_input("source", shape)
        out = build(source, shape, problem, cpu)
        fix_output(out, shape)
        return Pipeline(out, (source,))


def _end(x: hl.Expr, maximum: hl.Expr, total: hl.Expr, op: Softmax) -> hl.Expr:
    return x - maximum - log(total) if op.log else exp(x - maximum) / total


def _along_last_axis(source: Source, shape: Shape, problem: Problem[Softmax], cpu: Cpu) -> hl.Func:
    # --- algorithm
    rows, size = shape
    k, row, out, terms = hl.Var("k"), hl.Var("row"), hl.Func("out"), hl.Func("terms")
    maximum = reduce_rows("maximum", size, cpu.lanes, lambda k, row: source[k, row], _MAXIMUM)
    terms[k, row] = exp(source[k, row] - maximum.result[row])
    total = reduce_rows("total", size, cpu.lanes, lambda k, row: terms[k, row], row_sum(size, cpu.lanes))
    if problem.op.log:
        out[k, row] = source[k, row] - maximum.result[row] - log(hl.f32(total.result[row]))
    else:
        factor = hl.Func("factor")
        factor[row] = hl.strict_float(hl.f32(1.0) / hl.f32(total.result[row]))
        out[k, row] = terms[k, row] * factor[row]
        # One exponential an element: they wait in the first-level cache for their sum. Of a long row they are
        # computed twice.
        if size * 4 <= _ROW_BYTES:
            terms.compute_at(out, row).bound(k, 0, size).store_in(hl.MemoryType.Stack)
            terms.vectorize(k, cpu.lanes, hl.TailStrategy.GuardWithIf)
        factor.compute_at(out, row)
    # --- schedule
    split_rows(out, row, rows, problem.output.elements, problem.threads)
    out.vectorize(k, cpu.lanes, hl.TailStrategy.GuardWithIf)
    for reduction in (maximum, total):
        reduction.compute_at(out, row, cpu.lanes)
    return out


def _across(source: Source, shape: Shape, problem: Problem[Softmax], cpu: Cpu) -> hl.Func:
    # --- algorithm
    outer, size, _ = shape
    i, k, o = hl.Var("i"), hl.Var("k"), hl.Var("o")
    maximum, total, out = hl.Func("maximum"), hl.Func("total"), hl.Func("out")
    loops = [
        gather(maximum, (i, o), size, lambda k: source[i, k, o], _MAXIMUM),
        gather(total, (i, o), size, lambda k: exp(source[i, k, o] - maximum[i, o]), SUM),
    ]
    out[i, k, o] = _end(source[i, k, o], maximum[i, o], hl.f32(total[i, o]), problem.op)
    # --- schedule
    i_out = hl.Var("i_out")
    out.split(i, i_out, i, cpu.lanes, hl.TailStrategy.GuardWithIf).reorder(i, k, i_out, o).vectorize(i)
    split_rows(out, o, outer, problem.output.elements, problem.threads)
    for func, updates in zip((maximum, total), loops, strict=True):
        func.compute_at(out, i_out).vectorize(i, cpu.lanes, hl.TailStrategy.GuardWithIf)
        for number in range(len(updates)):
            func.update(number).vectorize(i, cpu.lanes, hl.TailStrategy.GuardWithIf)
    return out
