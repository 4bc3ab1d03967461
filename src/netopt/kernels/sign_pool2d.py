"""Pooling of packed signs: words of 32 channels at a time, by "and" and "or" of their bits."""

from __future__ import annotations

import dataclasses

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, whole_input
from netopt.kernels.parts.parallel import split_rows
from netopt.kernels.parts.spatial import SpatialInput, SpatialOutput
from netopt.kernels.sign import words_shape
from netopt.numerics import SIGNS, Shape, pack_signs, unpack_signs
from netopt.ops import SignPool2d, TensorType


class SignPool2dKernel(PlainKernel[SignPool2d]):
    """A bit is 1 for -1: all are +1 where the "or" is 0, and any is where the "and" is 0."""

    op = SignPool2d

    def argument_shapes(self, problem: Problem[SignPool2d], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        direction = (4 * -(-problem.inputs[0].shape[1] // 32),)
        return words_shape(problem.inputs[0]), direction, words_shape(problem.output)

    def pack(self, problem: Problem[SignPool2d], schedule: Schedule, cpu: Cpu, index: int, value: Array) -> Array:
        return pack_signs(value)

    def unpack(self, problem: Problem[SignPool2d], schedule: Schedule, cpu: Cpu, index: int, packed: Array) -> Array:
        return unpack_signs(packed, problem.inputs[0].shape[1])

    def build(self, problem: Problem[SignPool2d], schedule: Schedule, cpu: Cpu) -> Pipeline:
        op, (_, _, height, width) = problem.op, problem.inputs[0].shape
        # --- algorithm
        x, out = SpatialInput("x", _words(problem.inputs[0])), SpatialOutput(_words(problem.output))
        direction = whole_input("direction", (4 * out.channels,), problem.inputs[1])
        c, column, row, n, both = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func("both")
        k = hl.RDom([(0, op.kernel[1]), (0, op.kernel[0])], "window")
        # Outside the image stands the nearest element inside, which the window holds anyhow.
        place = (
            hl.clamp(column * op.stride[1] + k.x - op.padding[2], 0, width - 1),
            hl.clamp(row * op.stride[0] + k.y - op.padding[0], 0, height - 1),
        )
        both[c, column, row, n] = (hl.u32(0xFFFFFFFF), hl.u32(0))
        word = x.at(c, *place, n)
        so_far = both[c, column, row, n]
        both[c, column, row, n] = (so_far[0] & word, so_far[1] | word)

        def pooled(c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> hl.Expr:
            parts = [hl.cast(hl.UInt(32), direction[4 * c + byte]) << (8 * byte) for byte in range(4)]
            wants_all = parts[0] | parts[1] | parts[2] | parts[3]
            return (both[c, x, y, n][0] & ~wants_all) | (both[c, x, y, n][1] & wants_all)

        # --- schedule
        stage, columns, rows = out.define(pooled)
        lanes = min(cpu.lanes, out.channels)
        stage.vectorize(out.c, lanes, hl.TailStrategy.GuardWithIf)
        exact = hl.TailStrategy.GuardWithIf
        both.compute_at(out.func, columns).vectorize(c, lanes, exact).update().vectorize(c, lanes, exact)
        split_rows(stage, rows, out.height, out.channels * out.width * out.height, problem.threads)
        return Pipeline(out.finish(cpu.lanes), (x.param, direction))


def _words(type_: TensorType) -> TensorType:
    """A value of signs as one of words."""
    batch, channels, height, width = type_.shape
    return dataclasses.replace(type_, shape=(batch, -(-channels // 32), height, width), format=SIGNS)
