"""Parts of a tensor by their indices."""

from __future__ import annotations

import math

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, around_axis, fix_output, whole_input
from netopt.kernels.parts.codes import bytes_moved, moved, of_moves
from netopt.kernels.parts.parallel import split_rows, vector_of, vectorize_and_split
from netopt.numerics import Shape
from netopt.ops import Gather


class GatherKernel(PlainKernel[Gather]):
    """Vectors along what lies inside the axis, such as a row of a table; bound by memory."""

    op = Gather

    def argument_shapes(self, problem: Problem[Gather], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        outer, size, inner = around_axis(problem.inputs[0].shape, problem.op.axis)
        count = math.prod(problem.inputs[1].shape)
        return (outer, size, inner), (count,), (outer, count, inner)

    def code_problem(self, problem: Problem[Gather]) -> Problem[Gather]:
        return of_moves(problem)

    def build(self, problem: Problem[Gather], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        shape, indices_shape, output = self.argument_shapes(problem, schedule, cpu)
        source = whole_input("source", shape, problem.inputs[0])
        indices = whole_input("indices", indices_shape, problem.inputs[1])
        inner, number, outer, out = hl.Var("inner"), hl.Var("number"), hl.Var("outer"), hl.Func("out")
        index = indices[number]
        index = hl.select(index < 0, index + shape[1], index)
        # Clamped in the index's own type, so that nothing of 64 bits is cut off before.
        index = hl.cast(hl.Int(32), hl.clamp(index, hl.cast(index.type(), 0), hl.cast(index.type(), shape[1] - 1)))
        out[inner, number, outer] = moved(source.element([inner, index, outer]), problem.output.format)
        # --- schedule
        fix_output(out, output, problem.output)
        bytes_ = bytes_moved(problem.inputs[0].format, problem.output.format)
        if shape[2] > 1:
            split_rows(out, number, output[1], problem.output.elements // output[0], problem.threads)
            vectorize_and_split(out, inner, shape[2], vector_of(shape[2], cpu, bytes_), 1)
        else:
            vectorize_and_split(out, number, output[1], cpu.lanes, 1)
        return Pipeline(out, (source, indices))
