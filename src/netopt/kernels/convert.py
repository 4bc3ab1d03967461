"""From one number format to another: each number is rounded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Source, stored
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.elementwise import image_shapes, is_flat
from netopt.kernels.parts.parallel import vectorize_and_split
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput
from netopt.numerics import CodeFormat, NumberFormat, Shape
from netopt.ops import Convert

# Bits of a number that a product with a power of two keeps exact in float32.
_EXACT_IN_FLOAT32 = 16


class ConvertKernel(PlainKernel[Convert]):
    """One flat loop, or a walk over images in other layouts. Bound by memory."""

    op = Convert

    def argument_shapes(self, problem: Problem[Convert], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        return ((problem.output.elements,),) * 2 if _is_flat(problem) else image_shapes(problem)

    def build(self, problem: Problem[Convert], schedule: Schedule, cpu: Cpu) -> Pipeline:
        read, written = problem.inputs[0].format, problem.output.format
        if not _is_flat(problem):
            images, out_image = SpatialInput("source", problem.inputs[0]), SpatialOutput(problem.output)
            number: Callable[..., hl.Expr] = images.wide if is_wide(read, written) else images.at
            stage, _, _ = out_image.define(lambda *at: _as(number(*at), written))
            stage.vectorize(out_image.c, cpu.lanes, hl.TailStrategy.GuardWithIf)
            return Pipeline(out_image.finish(cpu.lanes), (images.param,))
        # --- algorithm
        shape, _ = self.argument_shapes(problem, schedule, cpu)
        source, i, out = whole_input("source", shape, problem.inputs[0]), hl.Var("i"), hl.Func("out")
        out[i] = converted(source, i, read, written)
        # --- schedule
        fix_output(out, shape, problem.output)
        vectorize_and_split(out, i, shape[0], cpu.lanes, problem.threads)
        return Pipeline(out, (source,))


def _is_flat(problem: Problem[Convert]) -> bool:
    is_image = any(type_.layout.channels_last for type_ in (problem.inputs[0], problem.output))
    return is_flat(problem) or not is_image


def converted(source: Source, at: Any, read: NumberFormat, written: NumberFormat) -> hl.Expr:
    """An element of one format as it is stored in another."""
    number = source.wide(at) if is_wide(read, written) else source[at]
    return stored(_as(number, written), written)


def _as(number: hl.Expr, written: NumberFormat) -> hl.Expr:
    return number if isinstance(written, CodeFormat) else hl.f32(number)


def is_wide(read: NumberFormat, written: NumberFormat) -> bool:
    """Whether a conversion is computed in float64: where float32 might round before the result is."""
    powers = all(
        not isinstance(f, CodeFormat) or (f.name == "fixed" and f.bits <= _EXACT_IN_FLOAT32) for f in (read, written)
    )
    return not powers
