"""Signs of floating numbers: packed, or as the numbers +1 and -1.

Packed from 64 x 56 x 56 floats in the second-level cache: the rate is in bench/binary_layers.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Source
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.math import f32, is_nan
from netopt.kernels.parts.parallel import split_rows
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput, channels_last, zero_halo
from netopt.kernels.parts.word import Word
from netopt.numerics import SIGNS, SMALLEST_NORMAL, Shape
from netopt.ops import CHANNELS_LAST, Sign, TensorType


def as_image(type_: TensorType) -> TensorType:
    """A value of rows (..., channels) as an image one pixel high, which lies in memory alike; an image as it is."""
    if type_.lies_as_image:
        return type_
    *_, channels = type_.shape or (1,)
    return dataclasses.replace(type_, shape=(1, channels, 1, type_.elements // channels), layout=CHANNELS_LAST)


def words_shape(type_: TensorType) -> Shape:
    """The shape in memory of a value of signs, in words: (batch, height, width, words), halo included."""
    image = as_image(type_)
    *pixels, channels = channels_last(image).physical(image.shape)
    return (*pixels, -(-channels // 32))


class SignKernel(PlainKernel[Sign]):
    """See the module."""

    op = Sign

    def argument_shapes(self, problem: Problem[Sign], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        x, output = self._images(problem)
        vectors = [type_.shape for type_ in problem.inputs[1:]]
        shape = words_shape(output) if output.format == SIGNS else SpatialOutput(output).shape
        return (SpatialInput("shape", x).shape, *vectors, shape)

    def _images(self, problem: Problem[Sign]) -> tuple[TensorType, TensorType]:
        # An image is written wherever the input lies.
        x = problem.inputs[0]
        return x if problem.output.lies_as_image else as_image(x), as_image(problem.output)

    def build(self, problem: Problem[Sign], schedule: Schedule, cpu: Cpu) -> Pipeline:
        x_type, output = self._images(problem)
        x = SpatialInput("x", x_type)
        channels = output.shape[1]
        vectors = [whole_input(name, (channels,), type_) for name, type_ in zip("td", problem.inputs[1:], strict=False)]

        def is_positive(*at: hl.Expr) -> hl.Expr:
            value = x.at(*at)
            if not vectors:
                # From 0 on, denormals being zero whatever the thread does with them.
                return (value > f32(-SMALLEST_NORMAL)) & ~is_nan(value)
            t, d = (vector[at[0]] for vector in vectors)
            return (d * value >= d * t) & ~is_nan(value)

        if output.format == SIGNS:
            out = _packed(output, is_positive, cpu, problem.threads)
        else:
            image = SpatialOutput(output)
            stage, _, _ = image.define(lambda *at: hl.select(is_positive(*at), f32(1.0), f32(-1.0)))
            stage.vectorize(image.c, cpu.lanes, hl.TailStrategy.GuardWithIf)
            out = image.finish(cpu.lanes)
        inputs: list[Source] = [x.param, *vectors]
        return Pipeline(out, tuple(inputs))


def _packed(output: TensorType, is_positive: Callable[..., hl.Expr], cpu: Cpu, threads: int) -> hl.Func:
    _, channels, height, width = output.shape
    top, _, left, _ = channels_last(output).halo
    w, n, out = hl.Var("w"), hl.Var("n"), hl.Func("out")
    out[w, hl.Var("x"), hl.Var("y"), n] = hl.undef(hl.UInt(32))
    whole, rest = divmod(channels, 32)
    number = 0
    for start, words, bits in ((0, whole, 32), (whole, 1, rest)):
        if not words or not bits:
            continue
        # --- algorithm
        place = hl.RDom([(start, words), (left, width), (top, height)], f"words{number}")
        x, y = hl.Var("x"), hl.Var("y")
        word = Word(f"word{number}", partial(_difference, is_positive, x, y, n), [x, y, n], min(cpu.lanes, bits), bits)
        out[place[0], place[1], place[2], n] = word.func[place[0], place[1] - left, place[2] - top, n]
        # --- schedule
        word.func.compute_at(out, place[0])
        out.update(number).unscheduled()
        split_rows(out.update(number), place[2], height, channels * width * height, threads)
        number += 1
    shape = words_shape(output)
    zero_halo(out, [w], n, channels_last(output).halo, shape, number, cpu.lanes)
    fix_output(out, shape)
    return out


def _difference(is_positive: Callable[..., hl.Expr], x: hl.Var, y: hl.Var, n: hl.Var, c: hl.Expr) -> hl.Expr:
    """-1 for the sign -1, else 0."""
    return hl.select(is_positive(c, x, y, n), hl.i32(0), hl.i32(-1))
