"""Pooling and the spatial mean over channels-last images: vectors along the channels. Bound by memory."""

from __future__ import annotations

import math

import halide as hl

from netopt.kernels.cpu import Cpu
from netopt.kernels.kernel import Pipeline, PlainKernel, Problem, Schedule
from netopt.kernels.math import at_least
from netopt.kernels.parallel import split_rows
from netopt.kernels.spatial import SpatialInput, SpatialOutput, channels_last
from netopt.numerics import Shape
from netopt.ops import Pool2d, SpatialMean, TensorType


def as_images(type_: TensorType) -> TensorType:
    """The type in channels-last layout, which one pixel a channel is in anyhow."""
    return TensorType(type_.shape, type_.format, channels_last(type_))


class FromImageToImage(PlainKernel):
    """A kernel with one image as input."""

    def argument_shapes(self, problem: Problem, schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        types = (as_images(problem.inputs[0]), as_images(problem.output))
        return tuple(type_.layout.physical(type_.shape) for type_ in types)


class Pool2dKernel(FromImageToImage):
    """The window is walked pixel by pixel; an element outside the image counts for nothing."""

    op = Pool2d

    def build(self, problem: Problem, schedule: Schedule, cpu: Cpu) -> Pipeline:
        assert isinstance(problem.op, Pool2d)
        # --- algorithm
        op, window = problem.op, problem.op.window()
        source, out = SpatialInput("source", as_images(problem.inputs[0])), SpatialOutput(problem.output)
        _, _, height, width = problem.inputs[0].shape
        c, x, y, n, total = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func("total")
        k = hl.RDom([(0, op.kernel[1]), (0, op.kernel[0])], "window")
        column = x * op.stride[1] + k.x * op.dilation[1] - window.padding[2]
        row = y * op.stride[0] + k.y * op.dilation[0] - window.padding[0]
        nothing = hl.f32(-math.inf if op.function == "max" else 0.0)
        # An element outside the image is replaced by the nearest inside, which the window holds anyhow unless it is
        # dilated; where that is not enough it is made to count for nothing.
        value = source.at(c, hl.clamp(column, 0, width - 1), hl.clamp(row, 0, height - 1), n)
        if not any(window.padding):
            value = source.at(c, column, row, n)
        elif op.function != "max" or op.dilation != (1, 1):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            value = hl.select(inside, value, nothing)
        total[c, x, y, n] = nothing
        so_far = hl.Expr(total[c, x, y, n])
        total[c, x, y, n] = larger(value, so_far) if op.function == "max" else so_far + value

        def result(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
            if op.function in ("max", "sum"):
                return total[c, x, y, n]
            return total[c, x, y, n] / hl.f32(_count(op, x, 1, width) * _count(op, y, 0, height))

        # --- schedule
        stage, columns, rows = out.define(result)
        c_out, channels = hl.Var("c_out"), problem.output.shape[1]
        # As many vectors of channels at once as leave no remainder: the maxima stay in registers.
        vectors = next((v for v in (4, 2, 3) if channels % (v * cpu.lanes) == 0), 1)
        tail = hl.TailStrategy.GuardWithIf
        stage.split(out.c, c_out, out.c, vectors * cpu.lanes, tail).reorder(out.c, c_out, columns)
        stage.vectorize(out.c, cpu.lanes, tail)
        read = problem.output.elements // out.batch * op.kernel[0] * op.kernel[1]
        split_rows(stage, rows, out.height, read, problem.threads)
        total.compute_at(out.func, c_out).align_storage(c, cpu.lanes).vectorize(c, cpu.lanes, tail)
        update = total.update().reorder(c, k.x, k.y).vectorize(c, cpu.lanes, tail)
        if op.kernel[0] * op.kernel[1] <= 16:
            update.unroll(k.x).unroll(k.y)
        if channels % (vectors * cpu.lanes) == 0:
            stage.unroll(out.c)
            total.unroll(c)
            update.unroll(c)
        return Pipeline(out.finish(cpu.lanes), (source.param,))


def larger(value: hl.Expr, so_far: hl.Expr) -> hl.Expr:
    """The maximum, and NaN where either is: a NaN so far must stay, and a new one must enter."""
    return hl.strict_float(hl.select(hl.is_nan(so_far), so_far, at_least(value, so_far)))


def _count(op: Pool2d, at: hl.Expr, axis: int, size: int) -> hl.Expr:
    """Elements of the window at output `at` along an axis (0: height) that the average divides by."""
    first = at * op.stride[axis] - op.padding[2 * axis]
    last = first + op.kernel[axis]
    if op.function == "average":
        return hl.min(last, size) - hl.max(first, 0)
    return hl.min(last, size + op.padding[2 * axis + 1]) - first


class SpatialMeanKernel(FromImageToImage):
    """One sum a channel over all pixels."""

    op = SpatialMean

    def build(self, problem: Problem, schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        source, out = SpatialInput("source", as_images(problem.inputs[0])), SpatialOutput(problem.output)
        _, _, height, width = problem.inputs[0].shape
        c, n, row, total = hl.Var("c"), hl.Var("n"), hl.Func("row"), hl.Func("total")
        y = hl.Var("y")
        along, down = hl.RDom([(0, width)], "along"), hl.RDom([(0, height)], "down")
        # Line by line, so that the rounding errors of a line's sum do not meet the large total.
        row[c, y, n] = hl.f32(0.0)
        row[c, y, n] += source.at(c, along.x, y, n)
        total[c, n] = hl.f32(0.0)
        total[c, n] += row[c, down.x, n]
        stage, _, _ = out.define(lambda c, x, y, n: total[c, n] * hl.f32(1.0 / (height * width)))
        # --- schedule
        c_out = hl.Var("c_out")
        stage.split(out.c, c_out, out.c, 4 * cpu.lanes, hl.TailStrategy.GuardWithIf).vectorize(out.c, cpu.lanes)
        # A sum of one channel would lie on the stack without the alignment that vectors are read with.
        for func in (total, row):
            func.align_storage(c, cpu.lanes)
        total.compute_at(out.func, c_out).vectorize(c, cpu.lanes, hl.TailStrategy.GuardWithIf)
        total.update().reorder(c, down.x).vectorize(c, cpu.lanes, hl.TailStrategy.GuardWithIf)
        row.compute_at(total, down.x).vectorize(c, cpu.lanes, hl.TailStrategy.GuardWithIf)
        row.update().reorder(c, along.x).vectorize(c, cpu.lanes, hl.TailStrategy.GuardWithIf)
        return Pipeline(out.finish(cpu.lanes), (source.param,))
