"""Pointwise functions of one input.

On codes of 8 bits any function is a table of what its reference gives of each of them. Seen on one core of an AMD EPYC
(Zen 5, AVX-512), of a million codes: a table 0.3 ms, the sigmoid in float32 0.5, a clamp of codes 0.03.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Element, Source
from netopt.kernels.machine.kernel import Call, Pipeline, PlainKernel, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.codes import without_steps
from netopt.kernels.parts.elementwise import build_on_images, image_shapes, is_flat
from netopt.kernels.parts.parallel import vector_of, vectorize_and_split
from netopt.kernels.parts.pointwise_codes import BYTES, bytes_computed, stored_of, table_of, uses_table
from netopt.numerics import CodeFormat, Shape
from netopt.ops import Pointwise, TensorType


class PointwiseKernel(PlainKernel[Pointwise]):
    """One flat loop. Bound by memory: relu over 1M floats in the L2 cache runs at the rate of a copy."""

    op = Pointwise

    def argument_shapes(self, problem: Problem[Pointwise], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        return ((problem.output.elements,),) * 2 if is_flat(problem) else image_shapes(problem)

    def code_problem(self, problem: Problem[Pointwise]) -> Problem[Pointwise]:
        # A table is data: all functions that are tables share machine code.
        is_table = _uses_table(problem)
        return without_steps(dataclasses.replace(problem, op=Pointwise("sigmoid"))) if is_table else problem

    def calls(
        self, problem: Problem[Pointwise], schedule: Schedule, cpu: Cpu, arrays: Sequence[Array], scratch: Array | None
    ) -> Sequence[Call]:
        if _uses_table(problem):
            read, written = problem.inputs[0].format, problem.output.format
            assert isinstance(read, CodeFormat) and isinstance(written, CodeFormat)
            arrays = (arrays[0], table_of(problem.op, read, written), arrays[1])
        return (Call("", lambda: self.build(problem, schedule, cpu), tuple(arrays)),)

    def build(self, problem: Problem[Pointwise], schedule: Schedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        table = _table(problem.output) if _uses_table(problem) else None
        function, others = _function(problem, table), (table,) if table else ()
        bytes_ = bytes_computed(problem.op, problem.inputs[0].format, problem.output.format)
        if not is_flat(problem):
            images = build_on_images(problem, cpu, function, bytes_)
            return Pipeline(images.output, (*images.inputs, *others))
        shape, _ = self.argument_shapes(problem, schedule, cpu)
        source, i, out = whole_input("source", shape, problem.inputs[0]), hl.Var("i"), hl.Func("out")
        out[i] = function(source.element([i]))
        # --- schedule
        fix_output(out, shape, problem.output)
        vectorize_and_split(out, i, shape[0], vector_of(shape[0], cpu, bytes_), problem.threads)
        return Pipeline(out, (source, *others))


def _uses_table(problem: Problem[Pointwise]) -> bool:
    return uses_table(problem.op, problem.inputs[0].format, problem.output.format)


def _table(output: TensorType) -> Source:
    return whole_input("table", (BYTES,), TensorType((BYTES,), output.format))


def _function(problem: Problem[Pointwise], table: Source | None) -> Callable[[Element], hl.Expr]:
    """What is stored of an element."""
    if table is None:
        return lambda x: stored_of(problem.op, x, problem.output.format)
    return lambda x: table.param[hl.i32(hl.cast(hl.UInt(8), x.stored))]
