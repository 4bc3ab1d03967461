"""Elementwise ops on images: any mixture of layouts and halos, read by logical coordinates."""

from __future__ import annotations

from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Pipeline, Problem
from netopt.kernels.parts.parallel import vector_of
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput
from netopt.numerics import Shape
from netopt.ops import Op


def is_flat(problem: Problem[Op]) -> bool:
    """Whether all operands have one shape and layout without gaps or halo: their memory can be walked as it lies."""
    first = problem.output
    return not any((*first.layout.halo, first.layout.pitch)) and all(
        type_.shape == first.shape and type_.layout == first.layout for type_ in problem.inputs
    )


def image_shapes(problem: Problem[Op]) -> tuple[Shape, ...]:
    """The shapes in memory of inputs and output, as `build_on_images` takes them."""
    inputs = tuple(SpatialInput("shape", type_).shape for type_ in problem.inputs)
    return (*inputs, problem.output.layout.physical(problem.output.shape))


def build_on_images(problem: Problem[Op], cpu: Cpu, function: Callable[..., hl.Expr], bytes_: int = 4) -> Pipeline:
    """function(*elements) for each element of a channels-last output, as it is stored.

    Args:
        problem: of which the output is channels last.
        cpu: what it runs on.
        function: of an `Element` of each input.
        bytes_: of the type that vectors are made of.
    """
    # --- algorithm
    inputs = [SpatialInput(f"x{number}", type_, broadcast=True) for number, type_ in enumerate(problem.inputs)]
    out = SpatialOutput(problem.output)
    stage, _, _ = out.define(
        lambda c, x, y, n: function(*(operand.element(c, x, y, n) for operand in inputs)), stored_already=True
    )
    # --- schedule
    stage.vectorize(out.c, vector_of(out.channels, cpu, bytes_), hl.TailStrategy.GuardWithIf)
    return Pipeline(out.finish(cpu.lanes), tuple(operand.param for operand in inputs))
