"""Adaptive pooling over channels-last images: vectors along the channels, windows walked pixel by pixel."""

from __future__ import annotations

import math

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Element, storage_type, stored
from netopt.kernels.machine.kernel import Pipeline, Problem, Schedule
from netopt.kernels.parts.codes import moved
from netopt.kernels.parts.math import flushed
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput
from netopt.kernels.pool2d import UNROLLED_WINDOW, FromImageToImage, as_images, larger
from netopt.numerics import CodeFormat
from netopt.ops import AdaptivePool2d


class AdaptivePool2dKernel(FromImageToImage[AdaptivePool2d]):
    """Every window is walked at the size of the longest; what lies beyond its end counts for nothing."""

    op = AdaptivePool2d

    def build(self, problem: Problem[AdaptivePool2d], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if isinstance(problem.inputs[0].format, CodeFormat):
            return _pool_codes(problem, cpu)
        # --- algorithm
        op, (_, _, height, width) = problem.op, problem.inputs[0].shape
        source, out = SpatialInput("source", as_images(problem.inputs[0])), SpatialOutput(problem.output)
        c, x, y, n, total = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func("total")
        k = hl.RDom([(0, op.longest(1, width)), (0, op.longest(0, height))], "window")
        left, right = _ends(x, width, op.size[1])
        top, bottom = _ends(y, height, op.size[0])
        column, row = left + k.x, top + k.y
        value = source.at(
            c, hl.clamp(hl.min(column, right - 1), 0, width - 1), hl.clamp(hl.min(row, bottom - 1), 0, height - 1), n
        )
        # A sum over many pixels would round often in float32.
        is_long = op.function != "max" and op.longest(0, height) * op.longest(1, width) > UNROLLED_WINDOW
        sums = hl.Float(64 if is_long else 32)
        total[c, x, y, n] = hl.cast(sums, hl.f32(-math.inf if op.function == "max" else 0.0))
        so_far = hl.Expr(total[c, x, y, n])
        if op.function == "max":
            # The last pixel of the window again, which changes no maximum.
            total[c, x, y, n] = larger(value, so_far)
        else:
            total[c, x, y, n] = so_far + hl.cast(sums, hl.select((column < right) & (row < bottom), value, hl.f32(0.0)))

        def result(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
            if op.function == "max":
                return flushed(total[c, x, y, n])
            (left, right), (top, bottom) = _ends(x, width, op.size[1]), _ends(y, height, op.size[0])
            across, down = right - left, bottom - top
            return flushed(hl.f32(total[c, x, y, n]) / hl.f32(across * down))

        # --- schedule
        stage, columns, _ = out.define(result)
        c_out, tail = hl.Var("c_out"), hl.TailStrategy.GuardWithIf
        stage.split(out.c, c_out, out.c, cpu.lanes, tail).reorder(out.c, c_out, columns).vectorize(out.c)
        total.compute_at(out.func, c_out).vectorize(c, cpu.lanes, tail)
        total.update().reorder(c, k.x, k.y).vectorize(c, cpu.lanes, tail)
        return Pipeline(out.finish(cpu.lanes), (source.param,))


def _ends(at: hl.Expr, pixels: int, parts: int) -> tuple[hl.Expr, hl.Expr]:
    """The first pixel of a window along an axis, and the one behind its last."""
    return at * pixels // parts, ((at + 1) * pixels + (parts - 1)) // parts


def _pool_codes(problem: Problem[AdaptivePool2d], cpu: Cpu) -> Pipeline:
    """The largest code, or the sum of all in 32 bits, which is divided and rounded as the reference does in float64."""
    # --- algorithm
    op, (_, _, height, width), written = problem.op, problem.inputs[0].shape, problem.output.format
    read = problem.inputs[0].format
    assert isinstance(read, CodeFormat)
    source, out = SpatialInput("source", as_images(problem.inputs[0])), SpatialOutput(problem.output)
    c, x, y, n, total = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func("total")
    k = hl.RDom([(0, op.longest(1, width)), (0, op.longest(0, height))], "window")
    (left, right), (top, bottom) = _ends(x, width, op.size[1]), _ends(y, height, op.size[0])
    column, row = left + k.x, top + k.y
    code = hl.i32(
        source.code(
            c, hl.clamp(hl.min(column, right - 1), 0, width - 1), hl.clamp(hl.min(row, bottom - 1), 0, height - 1), n
        )
    )
    # More codes than this of 16 bits may be more than 32 bits hold.
    sums = hl.Int(32) if op.longest(0, height) * op.longest(1, width) < 2**15 else hl.Float(64)
    if op.function == "max":
        # The last pixel of the window again, which changes no maximum.
        total[c, x, y, n] = hl.i32(read.codes.start)
        total[c, x, y, n] = hl.max(hl.Expr(total[c, x, y, n]), code)
    else:
        total[c, x, y, n] = hl.cast(sums, 0)
        inside = (column < right) & (row < bottom)
        total[c, x, y, n] += hl.cast(sums, hl.select(inside, code - read.zero, 0))

    def result(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
        whole = hl.Expr(total[c, x, y, n])
        if op.function == "max":
            return moved(Element(hl.cast(storage_type(read), whole), read), written)
        number = hl.f64(whole) * hl.f64(read.steps[0])
        (left, right), (top, bottom) = _ends(x, width, op.size[1]), _ends(y, height, op.size[0])
        number = hl.strict_float(number / hl.f64(bottom - top) / hl.f64(right - left))
        return stored(number if isinstance(written, CodeFormat) else hl.f32(number), written)

    # --- schedule
    stage, columns, _ = out.define(result, stored_already=True)
    c_out, tail = hl.Var("c_out"), hl.TailStrategy.GuardWithIf
    stage.split(out.c, c_out, out.c, cpu.lanes, tail).reorder(out.c, c_out, columns).vectorize(out.c)
    total.compute_at(out.func, c_out).align_storage(c, cpu.lanes).vectorize(c, cpu.lanes, tail)
    total.update().reorder(c, k.x, k.y).vectorize(c, cpu.lanes, tail)
    return Pipeline(out.finish(cpu.lanes), (source.param,))
