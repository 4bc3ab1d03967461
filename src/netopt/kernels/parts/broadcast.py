"""Elementwise kernels of several inputs, with NumPy's broadcasting."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Element
from netopt.kernels.machine.kernel import OpT, Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.elementwise import build_on_images, image_shapes, is_flat
from netopt.kernels.parts.parallel import split_rows, vector_of, vectorize_and_split
from netopt.numerics import Shape


def merge_axes(*shapes: Shape) -> tuple[Shape, ...]:
    """The same broadcast over as few axes as possible.

    Neighbouring axes that are broadcast in the same way become one: (32, 1, 8, 8) and (1, 16, 8, 8) become
    (32, 1, 64) and (1, 16, 64).
    """
    rank = max(map(len, shapes))
    merged: list[tuple[int, ...]] = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        if set(sizes) == {1}:
            continue
        if merged and _pattern(merged[-1]) == _pattern(sizes):
            merged[-1] = tuple(a * b for a, b in zip(merged[-1], sizes, strict=True))
        else:
            merged.append(sizes)
    return tuple(zip(*(merged or [(1,) * len(shapes)]), strict=True))


def _pattern(sizes: tuple[int, ...]) -> tuple[bool, ...]:
    return tuple(size == 1 for size in sizes)


class BroadcastKernel(PlainKernel[OpT]):
    """Vectors along the last merged axis. Bound by memory."""

    @abstractmethod
    def element(self, problem: Problem[OpT], *operands: Element) -> hl.Expr:
        """What is stored, of an element of each input."""

    def bytes_computed(self, problem: Problem[OpT]) -> int:
        """Bytes of the type that vectors are made of."""
        return 4

    def argument_shapes(self, problem: Problem[OpT], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        if problem.output.layout.channels_last and not is_flat(problem):
            return image_shapes(problem)
        shapes = merge_axes(*(type_.shape for type_ in problem.inputs))
        return *shapes, tuple(map(max, zip(*shapes, strict=True)))

    def build(self, problem: Problem[OpT], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if problem.output.layout.channels_last and not is_flat(problem):
            return build_on_images(problem, cpu, partial(self.element, problem), self.bytes_computed(problem))
        # --- algorithm
        *shapes, output = self.argument_shapes(problem, schedule, cpu)
        axes = [hl.Var(f"i{number}") for number in range(len(output))]
        operands = enumerate(zip(shapes, problem.inputs, strict=True))
        inputs = [whole_input(f"x{number}", shape, type_) for number, (shape, type_) in operands]
        elements = [
            param.element([hl.Expr(0) if size == 1 else axis for axis, size in zip(axes, reversed(shape), strict=True)])
            for param, shape in zip(inputs, shapes, strict=True)
        ]
        out = hl.Func("out")
        out[axes] = self.element(problem, *elements)
        # --- schedule
        fix_output(out, output, problem.output)
        lanes = vector_of(output[-1], cpu, self.bytes_computed(problem))
        if len(output) == 1:
            vectorize_and_split(out, axes[0], output[0], lanes, problem.threads)
        else:
            split_rows(out, axes[-1], output[0], problem.output.elements, problem.threads)
            vectorize_and_split(out, axes[0], output[-1], lanes, 1)
        return Pipeline(out, tuple(inputs))
