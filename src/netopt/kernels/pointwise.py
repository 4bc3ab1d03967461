"""Pointwise functions of one input."""

from __future__ import annotations

from functools import partial

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import stored
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.elementwise import build_on_images, image_shapes, is_flat
from netopt.kernels.parts.parallel import vectorize_and_split
from netopt.kernels.parts.pointwise import apply_to_any
from netopt.numerics import Shape
from netopt.ops import Pointwise


class PointwiseKernel(PlainKernel[Pointwise]):
    """One flat loop. Bound by memory: relu over 1M floats in the L2 cache runs at the rate of a copy."""

    op = Pointwise

    def argument_shapes(self, problem: Problem[Pointwise], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        return ((problem.output.elements,),) * 2 if is_flat(problem) else image_shapes(problem)

    def build(self, problem: Problem[Pointwise], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        if not is_flat(problem):
            return build_on_images(problem, cpu, partial(apply_to_any, problem.op))
        shape, _ = self.argument_shapes(problem, schedule, cpu)
        source, i, out = whole_input("source", shape, problem.inputs[0]), hl.Var("i"), hl.Func("out")
        out[i] = stored(apply_to_any(problem.op, source[i]), problem.output.format)
        # --- schedule
        fix_output(out, shape, problem.output)
        vectorize_and_split(out, i, shape[0], cpu.lanes, problem.threads)
        return Pipeline(out, (source,))
