"""The ops that move elements and compute nothing: permute, expand, slice, concat."""

from __future__ import annotations

from typing import Any

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import storage_type
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, around_axis, fix_output, whole_input
from netopt.kernels.parts.codes import moved, of_moves
from netopt.kernels.parts.elementwise import image_shapes
from netopt.kernels.parts.parallel import vector_of, vectorize_and_split
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput
from netopt.numerics import Shape
from netopt.ops import Concat, Expand, Permute, Slice


class PermuteKernel(PlainKernel[Permute]):
    """Vectors along the last axis of the output, gathered where that is not the last axis of the input."""

    op = Permute

    def argument_shapes(self, problem: Problem[Permute], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        return problem.inputs[0].shape, problem.output.shape

    def code_problem(self, problem: Problem[Permute]) -> Problem[Permute]:
        return of_moves(problem)

    def build(self, problem: Problem[Permute], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        source_shape, shape = self.argument_shapes(problem, schedule, cpu)
        source, out = whole_input("source", source_shape, problem.inputs[0]), hl.Func("out")
        by_axis = [hl.Var(f"i{axis}") for axis in range(len(shape))]
        of_source = [by_axis[problem.op.axes.index(axis)] for axis in range(len(shape))]
        out[by_axis[::-1]] = moved(source.element(of_source[::-1]), problem.output.format)
        # --- schedule
        fix_output(out, shape, problem.output)
        vectorize_and_split(out, by_axis[-1], shape[-1], _vector(shape[-1], problem, cpu), 1)
        return Pipeline(out, (source,))


class ExpandKernel(PlainKernel[Expand]):
    """Vectors along the last axis of the output: copied, or one number repeated."""

    op = Expand

    def argument_shapes(self, problem: Problem[Expand], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        shape = problem.inputs[0].shape
        return (1,) * (len(problem.output.shape) - len(shape)) + shape or (1,), problem.output.shape or (1,)

    def code_problem(self, problem: Problem[Expand]) -> Problem[Expand]:
        return of_moves(problem)

    def build(self, problem: Problem[Expand], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        source_shape, shape = self.argument_shapes(problem, schedule, cpu)
        source, out = whole_input("source", source_shape, problem.inputs[0]), hl.Func("out")
        axes = [hl.Var(f"i{axis}") for axis in range(len(shape))]
        read = [hl.Expr(0) if size == 1 else axis for axis, size in zip(axes, source_shape, strict=True)]
        out[axes[::-1]] = moved(source.element(read[::-1]), problem.output.format)
        # --- schedule
        fix_output(out, shape, problem.output)
        vectorize_and_split(out, axes[-1], shape[-1], _vector(shape[-1], problem, cpu), 1)
        return Pipeline(out, (source,))


class SliceKernel(PlainKernel[Slice]):
    """Vectors along what lies inside the axis, or along the axis where that is the last."""

    op = Slice

    def argument_shapes(self, problem: Problem[Slice], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        if problem.output.layout.channels_last:
            return image_shapes(problem)
        return tuple(around_axis(type_.shape, problem.op.axis) for type_ in (problem.inputs[0], problem.output))

    def code_problem(self, problem: Problem[Slice]) -> Problem[Slice]:
        return of_moves(problem)

    def build(self, problem: Problem[Slice], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if problem.output.layout.channels_last:
            return _slice_images(problem, cpu)
        # --- algorithm
        source_shape, shape = self.argument_shapes(problem, schedule, cpu)
        source, out = whole_input("source", source_shape, problem.inputs[0]), hl.Func("out")
        inner, along, outer = hl.Var("inner"), hl.Var("along"), hl.Var("outer")
        element = source.element([inner, problem.op.start + problem.op.step * along, outer])
        out[inner, along, outer] = moved(element, problem.output.format)
        # --- schedule
        fix_output(out, shape, problem.output)
        loop, size = (inner, shape[2]) if shape[2] > 1 else (along, shape[1])
        vectorize_and_split(out, loop, size, _vector(size, problem, cpu), 1)
        return Pipeline(out, (source,))


class ConcatKernel(PlainKernel[Concat]):
    """One copy loop an input; axis and what lies inside it are one run of memory."""

    op = Concat

    def argument_shapes(self, problem: Problem[Concat], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        if problem.output.layout.channels_last:
            return image_shapes(problem)
        views = [around_axis(type_.shape, problem.op.axis) for type_ in (*problem.inputs, problem.output)]
        return tuple((outer, size * inner) for outer, size, inner in views)

    def code_problem(self, problem: Problem[Concat]) -> Problem[Concat]:
        return of_moves(problem)

    def build(self, problem: Problem[Concat], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if problem.output.layout.channels_last:
            return _concat_images(problem, cpu)
        # --- algorithm
        *shapes, shape = self.argument_shapes(problem, schedule, cpu)
        operands = enumerate(zip(shapes, problem.inputs, strict=True))
        sources = [whole_input(f"source{number}", shape, type_) for number, (shape, type_) in operands]
        i, outer, out = hl.Var("i"), hl.Var("outer"), hl.Func("out")
        out[i, outer] = hl.undef(storage_type(problem.output.format))
        start = 0
        for number, (source, (_, length)) in enumerate(zip(sources, shapes, strict=True)):
            run = hl.RDom([(0, length)], f"run{number}")
            out[start + run.x, outer] = moved(source.element([run.x, outer]), problem.output.format)
            start += length
            # --- schedule
            out.update(number).vectorize(run.x, _vector(length, problem, cpu), hl.TailStrategy.GuardWithIf)
        fix_output(out, shape, problem.output)
        return Pipeline(out, tuple(sources))


def _vector(size: int, problem: Problem[Any], cpu: Cpu) -> int:
    """Elements of a vector along a loop of `size`."""
    return vector_of(size, cpu, max(type_.format.dtype.itemsize for type_ in (*problem.inputs, problem.output)))


# The axes of (batch, channels, height, width) in the order (c, x, y, n) of coordinates.
_COORDINATE = {0: 3, 1: 0, 2: 2, 3: 1}


def _slice_images(problem: Problem[Slice], cpu: Cpu) -> Pipeline:
    source, out = SpatialInput("source", problem.inputs[0]), SpatialOutput(problem.output)

    def part(*coordinates: hl.Expr) -> hl.Expr:
        where = list(coordinates)
        where[_COORDINATE[problem.op.axis]] = problem.op.start + problem.op.step * where[_COORDINATE[problem.op.axis]]
        return moved(source.element(*where), problem.output.format)

    stage, _, _ = out.define(part, stored_already=True)
    stage.vectorize(out.c, _vector(out.channels, problem, cpu), hl.TailStrategy.GuardWithIf)
    return Pipeline(out.finish(cpu.lanes), (source.param,))


def _concat_images(problem: Problem[Concat], cpu: Cpu) -> Pipeline:
    """One copy loop an input, each over its own part of the output."""
    out = SpatialOutput(problem.output)
    top, _, left, _ = out.layout.halo
    sources, start = [], 0
    for number, type_ in enumerate(problem.inputs):
        source = SpatialInput(f"source{number}", type_)
        batch, channels, height, width = type_.shape
        part = hl.RDom([(0, channels), (0, width), (0, height), (0, batch)], f"part{number}")
        coordinates = [part[i] for i in range(4)]
        target = [coordinates[0], coordinates[1] + left, coordinates[2] + top, coordinates[3]]
        target[_COORDINATE[problem.op.axis]] = target[_COORDINATE[problem.op.axis]] + start
        out.func[target] = moved(source.element(*coordinates), problem.output.format)
        vector = _vector(channels, problem, cpu)
        out.func.update(out.updates).vectorize(coordinates[0], vector, hl.TailStrategy.GuardWithIf)
        out.updates += 1
        start += type_.shape[problem.op.axis]
        sources.append(source.param)
    return Pipeline(out.finish(cpu.lanes), tuple(sources))
