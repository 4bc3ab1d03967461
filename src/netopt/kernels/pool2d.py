"""Pooling and the spatial mean over channels-last images: vectors along the channels. Bound by memory.

Maxima over 3 x 3 with stride 2, in us on one core of an AMD EPYC (Zen 5, AVX-512), and those of a chain of maxima in
place of a tree: 64 x 111 x 111 in 42 (73), 64 x 112 x 112 with padding 42 (77), 128 x 55 x 55 in 31 (37).
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from functools import partial

import halide as hl

from netopt.kernels.code_pools import mean_of_codes, pool_codes
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import OpT, Pipeline, PlainKernel, Problem, Schedule
from netopt.kernels.parts.codes import of_moves
from netopt.kernels.parts.math import at_least, flushed
from netopt.kernels.parts.parallel import split_rows
from netopt.kernels.parts.rows import SUM, gather, gather_window, tree
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput, channels_last
from netopt.numerics import CodeFormat, Shape
from netopt.ops import Pool2d, SpatialMean, TensorType

# Elements of a window that are written out at most, so that code stays small.
UNROLLED_WINDOW = 16


def as_images(type_: TensorType) -> TensorType:
    """The type in channels-last layout, which one pixel a channel is in anyhow."""
    return TensorType(type_.shape, type_.format, channels_last(type_))


class FromImageToImage(PlainKernel[OpT]):
    """A kernel with one image as input."""

    def argument_shapes(self, problem: Problem[OpT], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        types = (as_images(problem.inputs[0]), as_images(problem.output))
        return tuple(type_.layout.physical(type_.shape) for type_ in types)


class Pool2dKernel(FromImageToImage[Pool2d]):
    """The window is walked pixel by pixel; an element outside the image counts for nothing."""

    op = Pool2d

    def code_problem(self, problem: Problem[Pool2d]) -> Problem[Pool2d]:
        return of_moves(problem) if problem.op.function == "max" else problem

    def build(self, problem: Problem[Pool2d], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if isinstance(problem.inputs[0].format, CodeFormat):
            return pool_codes(problem, as_images(problem.inputs[0]), cpu, partial(_count, problem.op))
        return self._of_numbers(problem, cpu)

    def _of_numbers(self, problem: Problem[Pool2d], cpu: Cpu) -> Pipeline:
        # --- algorithm
        op, window = problem.op, problem.op.window()
        source, out = SpatialInput("source", as_images(problem.inputs[0])), SpatialOutput(problem.output)
        _, _, height, width = problem.inputs[0].shape
        if op.function == "max" and op.dilation == (1, 1) and math.prod(op.kernel) <= UNROLLED_WINDOW:
            return _small_max(op, source, out, problem, cpu)
        c, x, y, n, total = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func("total")
        nothing = hl.f32(-math.inf if op.function == "max" else 0.0)

        def value(kx: hl.Expr, ky: hl.Expr) -> hl.Expr:
            column = x * op.stride[1] + kx * op.dilation[1] - window.padding[2]
            row = y * op.stride[0] + ky * op.dilation[0] - window.padding[0]
            if not any(window.padding):
                return source.at(c, column, row, n)
            # An element outside the image is replaced by the nearest inside, which the window holds anyhow unless it
            # is dilated; where that is not enough it is made to count for nothing.
            nearest = source.at(c, hl.clamp(column, 0, width - 1), hl.clamp(row, 0, height - 1), n)
            if op.function == "max" and op.dilation == (1, 1):
                return nearest
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            return hl.select(inside, nearest, nothing)

        loops = _walk(op, total, (c, x, y, n), value, nothing)

        def result(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
            if op.function in ("max", "sum"):
                return flushed(hl.f32(total[c, x, y, n]))
            count = hl.f32(_count(op, x, 1, width) * _count(op, y, 0, height))
            return flushed(hl.f32(total[c, x, y, n]) / count)

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
        updates = [
            total.update(number).reorder(c, *loop).vectorize(c, cpu.lanes, tail) for number, loop in enumerate(loops)
        ]
        if math.prod(op.kernel) <= UNROLLED_WINDOW:
            updates[0].unroll(loops[0][0]).unroll(loops[0][1])
        if channels % (vectors * cpu.lanes) == 0:
            stage.unroll(out.c)
            for update in (total, *updates):
                update.unroll(c)
        return Pipeline(out.finish(cpu.lanes), (source.param,))


def _walk(
    op: Pool2d, total: hl.Func, at: Sequence[hl.Var], value: Callable[[hl.Expr, hl.Expr], hl.Expr], nothing: hl.Expr
) -> list[tuple[hl.RVar, hl.RVar]]:
    """Define total[at] pixel by pixel of the window, a large sum in trees; the loops over its columns and rows."""
    if op.function != "max" and math.prod(op.kernel) > UNROLLED_WINDOW:
        return gather_window(total, at, op.kernel[::-1], value, SUM)
    k = hl.RDom([(0, op.kernel[1]), (0, op.kernel[0])], "window")
    total[list(at)] = nothing
    so_far = hl.Expr(total[list(at)])
    total[list(at)] = larger(value(k.x, k.y), so_far) if op.function == "max" else so_far + value(k.x, k.y)
    return [(k.x, k.y)]


def _small_max(op: Pool2d, source: SpatialInput, out: SpatialOutput, problem: Problem[Pool2d], cpu: Cpu) -> Pipeline:
    """The maximum over a window that is written out: a tree, where a chain would wait for each step."""
    # --- algorithm
    window, (height, width) = op.window(), problem.inputs[0].shape[2:]

    def result(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
        values = []
        for ky, kx in itertools.product(*map(range, op.kernel)):
            column = x * op.stride[1] + kx - window.padding[2]
            row = y * op.stride[0] + ky - window.padding[0]
            if any(window.padding):
                # The nearest inside the image, which the window holds anyhow.
                column, row = hl.clamp(column, 0, width - 1), hl.clamp(row, 0, height - 1)
            values.append(source.at(c, column, row, n))
        is_nan = tree(operator.or_, [hl.is_nan(value) for value in values])
        # What a comparison with NaN gives does not matter then.
        most = tree(lambda a, b: hl.select(a > b, a, b), values)
        return flushed(hl.strict_float(hl.select(is_nan, hl.f32(math.nan), most)))

    # --- schedule
    stage, columns, rows = out.define(result)
    c_out, x_out, x_in, tail = hl.Var("c_out"), hl.RVar("x_out"), hl.RVar("x_in"), hl.TailStrategy.GuardWithIf
    # A few pixels at a time: a whole line of one vector of channels would share a few sets of the first-level cache.
    stage.split(out.c, c_out, out.c, cpu.lanes, tail).split(columns, x_out, x_in, 8, tail)
    stage.reorder(out.c, x_in, c_out, x_out)
    stage.vectorize(out.c)
    read = problem.output.elements // out.batch * math.prod(op.kernel)
    split_rows(stage, rows, out.height, read, problem.threads)
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


class SpatialMeanKernel(FromImageToImage[SpatialMean]):
    """One sum a channel over all pixels."""

    op = SpatialMean

    def build(self, problem: Problem[SpatialMean], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if isinstance(problem.inputs[0].format, CodeFormat):
            return mean_of_codes(problem, as_images(problem.inputs[0]), cpu)
        # --- algorithm
        source, out = SpatialInput("source", as_images(problem.inputs[0])), SpatialOutput(problem.output)
        _, _, height, width = problem.inputs[0].shape
        c, n, row, total = hl.Var("c"), hl.Var("n"), hl.Func("row"), hl.Func("total")
        y, down = hl.Var("y"), hl.RDom([(0, height)], "down")
        loops = gather(row, (c, y, n), width, lambda x: source.at(c, x, y, n), SUM)
        total[c, n] = hl.f64(0.0)
        total[c, n] += row[c, down.x, n]
        share = hl.f64(1.0 / (height * width))
        stage, _, _ = out.define(lambda c, x, y, n: flushed(hl.f32(total[c, n] * share)))
        # --- schedule
        c_out = hl.Var("c_out")
        stage.split(out.c, c_out, out.c, 4 * cpu.lanes, hl.TailStrategy.GuardWithIf).vectorize(out.c, cpu.lanes)
        # A sum of one channel would lie on the stack without the alignment that vectors are read with.
        for func in (total, row):
            func.align_storage(c, cpu.lanes)
        total.compute_at(out.func, c_out).vectorize(c, cpu.lanes, hl.TailStrategy.GuardWithIf)
        total.update().reorder(c, down.x).vectorize(c, cpu.lanes, hl.TailStrategy.GuardWithIf)
        row.compute_at(total, down.x).vectorize(c, cpu.lanes, hl.TailStrategy.GuardWithIf)
        for number, loop in enumerate(loops):
            row.update(number).reorder(c, loop).vectorize(c, cpu.lanes, hl.TailStrategy.GuardWithIf)
        return Pipeline(out.finish(cpu.lanes), (source.param,))
