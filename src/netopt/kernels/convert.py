"""From one number format to another: each number is rounded once."""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.codes import bytes_moved, moved
from netopt.kernels.parts.elementwise import is_flat
from netopt.kernels.parts.parallel import vector_of, vectorize_and_split
from netopt.kernels.relayout import relayout
from netopt.numerics import Shape
from netopt.ops import Convert


class ConvertKernel(PlainKernel[Convert]):
    """One flat loop, or a copy from one layout to another. Bound by memory."""

    op = Convert

    def argument_shapes(self, problem: Problem[Convert], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        if _is_flat(problem):
            return ((problem.output.elements,),) * 2
        return tuple(type_.layout.physical(type_.shape) for type_ in (problem.inputs[0], problem.output))

    def build(self, problem: Problem[Convert], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if not _is_flat(problem):
            return relayout(problem, cpu)
        # --- algorithm
        read, written = problem.inputs[0].format, problem.output.format
        shape, _ = self.argument_shapes(problem, schedule, cpu)
        source, i, out = whole_input("source", shape, problem.inputs[0]), hl.Var("i"), hl.Func("out")
        out[i] = moved(source.element([i]), written)
        # --- schedule
        fix_output(out, shape, problem.output)
        vectorize_and_split(out, i, shape[0], vector_of(shape[0], cpu, bytes_moved(read, written)), problem.threads)
        return Pipeline(out, (source,))


def _is_flat(problem: Problem[Convert]) -> bool:
    is_image = any(type_.layout.channels_last for type_ in (problem.inputs[0], problem.output))
    return is_flat(problem) or not is_image
