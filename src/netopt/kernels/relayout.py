"""Copies between layouts.

An image of 3 channels of 224 x 224 goes from row-major to channels last in 12 us on one core of an AMD EPYC (Zen 5,
AVX-512), by PyTorch in 54.
"""

from __future__ import annotations

from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import OpT, Pipeline, PlainKernel, Problem, Schedule, fix_output
from netopt.kernels.parts.codes import bytes_moved, moved, of_moves
from netopt.kernels.parts.parallel import vector_of
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput
from netopt.numerics import Shape
from netopt.ops import Relayout


class RelayoutKernel(PlainKernel[Relayout]):
    """Vectors along what is innermost in the output."""

    op = Relayout

    def argument_shapes(self, problem: Problem[Relayout], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        return tuple(type_.layout.physical(type_.shape) for type_ in (problem.inputs[0], problem.output))

    def code_problem(self, problem: Problem[Relayout]) -> Problem[Relayout]:
        return of_moves(problem)

    def build(self, problem: Problem[Relayout], schedule: Schedule, cpu: Cpu) -> Pipeline:
        return relayout(problem, cpu)


def relayout(problem: Problem[OpT], cpu: Cpu) -> Pipeline:
    """A copy of images from one layout, and one format, to another."""
    # --- algorithm
    written = problem.output.format
    source, bytes_ = SpatialInput("source", problem.inputs[0]), bytes_moved(problem.inputs[0].format, written)

    def element(*at: hl.Expr) -> hl.Expr:
        return moved(source.element(*at), written)

    if problem.output.layout.channels_last:
        images = SpatialOutput(problem.output)
        if images.channels < cpu.lanes and not problem.inputs[0].layout.channels_last:
            _interleave(images, element, vector_of(images.width, cpu, bytes_))
        else:
            stage, _, _ = images.define(element, stored_already=True)
            stage.vectorize(images.c, vector_of(images.channels, cpu, bytes_), hl.TailStrategy.GuardWithIf)
        return Pipeline(images.finish(cpu.lanes), (source.param,))
    x, y, c, n, out = hl.Var("x"), hl.Var("y"), hl.Var("c"), hl.Var("n"), hl.Func("out")
    out[x, y, c, n] = element(c, x, y, n)
    # --- schedule
    fix_output(out, problem.output.shape, problem.output)
    out.vectorize(x, vector_of(problem.output.shape[3], cpu, bytes_), hl.TailStrategy.GuardWithIf)
    return Pipeline(out, (source.param,))


def _interleave(images: SpatialOutput, element: Callable[..., hl.Expr], lanes: int) -> None:
    """Few channels from row-major: a vector of pixels of each is read, and all are written interleaved."""
    whole = images.width // lanes * lanes
    images.func.bound(images.c, 0, images.channels)
    for start, width in ((0, whole), (whole, images.width - whole)):
        if width:
            stage, x, _ = images.define(element, start, width, stored_already=True)
            stage.reorder(images.c, x).unroll(images.c)
            if start == 0 and whole:
                stage.vectorize(x, lanes, hl.TailStrategy.GuardWithIf)
