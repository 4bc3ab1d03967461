"""Elementwise arithmetic with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Callable

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import stored
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.elementwise import build_on_images, image_shapes, is_flat
from netopt.kernels.parts.math import flushed, maximum, minimum
from netopt.kernels.parts.parallel import split_rows, vectorize_and_split
from netopt.numerics import Shape
from netopt.ops import Arithmetic

# --- algorithm

EXPRESSIONS: dict[str, Callable[[hl.Expr, hl.Expr], hl.Expr]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "prelu": lambda x, slope: flushed(hl.select(x > hl.f32(0.0), x, slope * x)),
    "maximum": lambda x, y: flushed(maximum(x, y)),
    "minimum": lambda x, y: flushed(minimum(x, y)),
}


def merge_axes(first: Shape, second: Shape) -> tuple[Shape, Shape]:
    """The same broadcast over as few axes as possible.

    Neighbouring axes that are broadcast in the same way become one: (32, 1, 8, 8) and (1, 16, 8, 8) become
    (32, 1, 64) and (1, 16, 64).
    """
    rank = max(len(first), len(second))
    pairs = zip((1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True)
    merged: list[tuple[int, int]] = []
    for a, b in pairs:
        if (a, b) == (1, 1):
            continue
        if merged and _pattern(*merged[-1]) == _pattern(a, b):
            merged[-1] = (merged[-1][0] * a, merged[-1][1] * b)
        else:
            merged.append((a, b))
    merged = merged or [(1, 1)]
    return tuple(a for a, _ in merged), tuple(b for _, b in merged)


def _pattern(a: int, b: int) -> tuple[bool, bool]:
    return a == 1, b == 1


# --- schedule


class ArithmeticKernel(PlainKernel[Arithmetic]):
    """Vectors along the last merged axis. Bound by memory."""

    op = Arithmetic

    def argument_shapes(self, problem: Problem[Arithmetic], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        if problem.output.layout.channels_last and not is_flat(problem):
            return image_shapes(problem)
        first, second = merge_axes(problem.inputs[0].shape, problem.inputs[1].shape)
        return first, second, tuple(map(max, first, second))

    def build(self, problem: Problem[Arithmetic], schedule: Schedule, cpu: Cpu) -> Pipeline:
        function = EXPRESSIONS[problem.op.function]
        if problem.output.layout.channels_last and not is_flat(problem):
            return build_on_images(problem, cpu, lambda x, y: hl.strict_float(function(x, y)))
        *shapes, output = self.argument_shapes(problem, schedule, cpu)
        axes = [hl.Var(f"i{number}") for number in range(len(output))]
        operands = zip(("x", "y"), shapes, problem.inputs, strict=True)
        inputs = [whole_input(name, shape, type_) for name, shape, type_ in operands]
        x, y = (
            param[[hl.Expr(0) if size == 1 else axis for axis, size in zip(axes, reversed(shape), strict=True)]]
            for param, shape in zip(inputs, shapes, strict=True)
        )
        out = hl.Func("out")
        # Division must be the correctly rounded one, not a product with an approximate reciprocal.
        out[axes] = stored(hl.strict_float(function(x, y)), problem.output.format)
        fix_output(out, output, problem.output)
        if len(output) == 1:
            vectorize_and_split(out, axes[0], output[0], cpu.lanes, problem.threads)
        else:
            split_rows(out, axes[-1], output[0], problem.output.elements, problem.threads)
            vectorize_and_split(out, axes[0], output[-1], cpu.lanes, 1)
        return Pipeline(out, tuple(inputs))
