"""Pooling of codes: maxima are taken of the codes themselves, sums in 32 bits, and averages are rounded once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import storage_type
from netopt.kernels.machine.kernel import Pipeline, Problem
from netopt.kernels.parts.parallel import split_rows
from netopt.kernels.parts.rows import tree
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput
from netopt.numerics import CodeFormat
from netopt.ops import Pool2d, SpatialMean, TensorType

Value = Callable[[hl.Expr, hl.Expr, hl.Expr, hl.Expr], hl.Expr]
# Elements of a window that are written out at most.
_UNROLLED_WINDOW = 16


def pool_codes(
    problem: Problem[Pool2d], image: TensorType, cpu: Cpu, count: Callable[[hl.Expr, int, int], hl.Expr]
) -> Pipeline:
    """The pipeline.

    Args:
        problem: of which the input has codes.
        image: the input's type in channels-last layout.
        count: count(at, axis, size): elements of the window at output `at` along an axis that an average divides by.
    """
    source, out = SpatialInput("source", image), SpatialOutput(problem.output)
    _, _, height, width = problem.inputs[0].shape
    if problem.op.function == "max":
        return _maximum(problem, source, out, cpu)
    op, window, format_ = problem.op, problem.op.window(), problem.inputs[0].format
    assert isinstance(format_, CodeFormat)

    def term(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr, kx: hl.Expr, ky: hl.Expr) -> hl.Expr:
        column = x * op.stride[1] + kx * op.dilation[1] - window.padding[2]
        row = y * op.stride[0] + ky * op.dilation[0] - window.padding[0]
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        code = source.code(c, hl.clamp(column, 0, width - 1), hl.clamp(row, 0, height - 1), n)
        value = hl.i32(code) - format_.zero
        return hl.select(inside, value, 0) if any(window.padding) else value

    def divisor(x: hl.Expr, y: hl.Expr) -> hl.Expr | None:
        return None if op.function == "sum" else hl.f64(count(x, 1, width) * count(y, 0, height))

    return _sums(problem.output, format_, (source, out), op.kernel, term, divisor, problem.threads, cpu)


def mean_of_codes(problem: Problem[SpatialMean], image: TensorType, cpu: Cpu) -> Pipeline:
    """The mean over all pixels; the arguments are those of `pool_codes`."""
    source, out = SpatialInput("source", image), SpatialOutput(problem.output)
    _, _, height, width = problem.inputs[0].shape
    format_ = problem.inputs[0].format
    assert isinstance(format_, CodeFormat)

    def term(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr, kx: hl.Expr, ky: hl.Expr) -> hl.Expr:
        return hl.i32(source.code(c, kx, ky, n)) - format_.zero

    def divisor(x: hl.Expr, y: hl.Expr) -> hl.Expr:
        return hl.f64(float(height * width))

    return _sums(problem.output, format_, (source, out), (height, width), term, divisor, problem.threads, cpu)


def _sums(
    output: TensorType,
    format_: CodeFormat,
    ends: tuple[SpatialInput, SpatialOutput],
    kernel: tuple[int, int],
    term: Callable[..., hl.Expr],
    divisor: Callable[[hl.Expr, hl.Expr], hl.Expr | None],
    threads: int,
    cpu: Cpu,
) -> Pipeline:
    """Sums of codes over a window, divided and rounded as the reference does it in float64."""
    # --- algorithm
    source, out = ends
    c, x, y, n, total = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func("total")
    window = hl.RDom([(0, kernel[1]), (0, kernel[0])], "window")
    # More codes than this of 16 bits may be more than 32 bits hold.
    sums = hl.Int(32) if math.prod(kernel) < 2**15 else hl.Float(64)
    total[c, x, y, n] = hl.cast(sums, 0)
    total[c, x, y, n] += hl.cast(sums, term(c, x, y, n, window.x, window.y))

    def value(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
        number = hl.f64(total[c, x, y, n]) * hl.f64(format_.steps[0])
        by = divisor(x, y)
        number = number if by is None else number / by
        return hl.strict_float(number if isinstance(output.format, CodeFormat) else hl.f32(number))

    # --- schedule
    stage, columns, rows = out.define(value)
    c_out, tail = hl.Var("c_out"), hl.TailStrategy.GuardWithIf
    stage.split(out.c, c_out, out.c, cpu.lanes, tail).reorder(out.c, c_out, columns).vectorize(out.c)
    split_rows(stage, rows, out.height, output.elements // out.batch * math.prod(kernel), threads)
    total.compute_at(out.func, c_out).align_storage(c, cpu.lanes).vectorize(c, cpu.lanes, tail)
    update = total.update().reorder(c, window.x, window.y).vectorize(c, cpu.lanes, tail)
    if math.prod(kernel) <= _UNROLLED_WINDOW:
        update.unroll(window.x).unroll(window.y)
    return Pipeline(out.finish(cpu.lanes), (source.param,))


def _maximum(problem: Problem[Pool2d], source: SpatialInput, out: SpatialOutput, cpu: Cpu) -> Pipeline:
    """The largest code, which stands for the largest number; padding never wins."""
    # --- algorithm
    op, window = problem.op, problem.op.window()
    _, _, height, width = problem.inputs[0].shape
    read, written = problem.inputs[0].format, problem.output.format
    assert isinstance(read, CodeFormat)
    least = hl.cast(storage_type(read), read.codes.start)

    def element(kx: hl.Expr, ky: hl.Expr, at: tuple[hl.Expr, hl.Expr, hl.Expr, hl.Expr]) -> hl.Expr:
        c, x, y, n = at
        column = x * op.stride[1] + kx * op.dilation[1] - window.padding[2]
        row = y * op.stride[0] + ky * op.dilation[0] - window.padding[0]
        if not any(window.padding):
            return source.code(c, column, row, n)
        code = source.code(c, hl.clamp(column, 0, width - 1), hl.clamp(row, 0, height - 1), n)
        if op.dilation == (1, 1):
            return code  # the nearest inside, which the window holds anyhow
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        return hl.select(inside, code, least)

    unrolled = math.prod(op.kernel) <= _UNROLLED_WINDOW
    c, x, y, n, most = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func("most")
    at = (c, x, y, n)
    if unrolled:
        places = itertools.product(range(op.kernel[0]), range(op.kernel[1]))
        most[c, x, y, n] = tree(hl.max, [element(hl.Expr(kx), hl.Expr(ky), at) for ky, kx in places])
    else:
        k = hl.RDom([(0, op.kernel[1]), (0, op.kernel[0])], "window")
        most[c, x, y, n] = least
        most[c, x, y, n] = hl.max(hl.Expr(most[c, x, y, n]), element(k.x, k.y, at))

    def value(*where: hl.Expr) -> hl.Expr:
        code = hl.Expr(most[list(where)])
        if read == written:
            return code
        number = (hl.f64(code) - float(read.zero)) * hl.f64(read.steps[0])
        return hl.strict_float(number if isinstance(written, CodeFormat) else hl.f32(number))

    # --- schedule
    stage, columns, rows = out.define(value, stored_already=read == written)
    lanes = cpu.lanes * (4 // storage_type(read).bytes() if read == written else 1)
    c_out, tail = hl.Var("c_out"), hl.TailStrategy.GuardWithIf
    stage.split(out.c, c_out, out.c, lanes, tail).reorder(out.c, c_out, columns).vectorize(out.c)
    split_rows(stage, rows, out.height, problem.output.elements // out.batch * math.prod(op.kernel), problem.threads)
    if not unrolled:
        most.compute_at(out.func, c_out).align_storage(c, lanes).vectorize(c, lanes, tail)
        most.update().reorder(c, k.x, k.y).vectorize(c, lanes, tail)
    return Pipeline(out.finish(cpu.lanes), (source.param,))
