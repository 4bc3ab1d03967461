"""Recurrent layers: the same code for each time step, which reads the step before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Call, Kernel, Pipeline, Problem, Schedule, part_input, whole_input
from netopt.kernels.parts.math import at_least, f32, sigmoid, tanh
from netopt.numerics import FLOAT32, Shape
from netopt.ops import Recurrent


@dataclass(frozen=True)
class RecurrentSchedule(Schedule):
    """How a step is computed.

    Attributes:
        vectors: of hidden units that are computed together; each has an accumulator for each gate.
        rows: of the batch that share what is read of the weight.
    """

    vectors: int
    rows: int


class RecurrentKernel(Kernel[Recurrent, RecurrentSchedule]):
    """A step is a product with the recurrent weight, and what the gates make of it while it is in registers.

    The weight is packed so that a block of hidden units reads it in a row: [block][input][gate][unit].
    """

    op = Recurrent

    def schedules(self, problem: Problem[Recurrent], cpu: Cpu) -> Sequence[RecurrentSchedule]:
        _, batch, hidden = problem.output.shape
        gates, vectors_there = problem.op.gates, -(-hidden // cpu.lanes)
        # Accumulators that hide the latency of a multiply-add, and stay in registers with what they read.
        heights = [rows for rows in (4, 2, 1) if rows <= batch]
        wanted = [(vectors, rows) for rows in heights for vectors in (4, 2, 1) if vectors <= vectors_there]
        most = cpu.registers - 4
        fitting = [(v, r) for v, r in wanted if v * r * gates + v <= most] or [(1, 1)]
        best = sorted(fitting, key=lambda each: (-min(8, each[0] * each[1] * gates), -each[1], each[0]))
        return [RecurrentSchedule(vectors, rows) for vectors, rows in best]

    def argument_shapes(self, problem: Problem[Recurrent], schedule: RecurrentSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        block, hidden = schedule.vectors * cpu.lanes, problem.output.shape[2]
        packed = (-(-hidden // block), hidden, problem.op.gates, block)
        shapes = [type_.shape for type_ in (*problem.inputs, problem.output)]
        return (shapes[0], packed, *shapes[2:])

    def pack(
        self, problem: Problem[Recurrent], schedule: RecurrentSchedule, cpu: Cpu, index: int, value: Array
    ) -> Array:
        shape = self.argument_shapes(problem, schedule, cpu)[index]
        if index != 1:
            return value.reshape(shape)
        blocks, hidden, gates, block = shape
        padded = np.zeros((gates, blocks * block, hidden), value.dtype)
        padded[:, :hidden] = value.reshape(gates, hidden, hidden)
        return np.ascontiguousarray(padded.reshape(gates, blocks, block, hidden).transpose(1, 3, 0, 2))

    def packing(self, problem: Problem[Recurrent], schedule: RecurrentSchedule) -> tuple[int, ...]:
        return (problem.op.gates, schedule.vectors)

    def unpack(
        self, problem: Problem[Recurrent], schedule: RecurrentSchedule, cpu: Cpu, index: int, packed: Array
    ) -> Array:
        if index != 1:
            return packed.reshape(problem.inputs[index].shape)
        blocks, hidden, gates, block = packed.shape
        rows = packed.transpose(2, 0, 3, 1).reshape(gates, blocks * block, hidden)[:, :hidden]
        return np.ascontiguousarray(rows.reshape(gates * hidden, hidden))

    def calls(
        self,
        problem: Problem[Recurrent],
        schedule: RecurrentSchedule,
        cpu: Cpu,
        arrays: Sequence[Array],
        scratch: Array | None,
    ) -> Sequence[Call]:
        given, weight, hidden, *own, output = arrays
        op, steps, size = problem.op, len(given), problem.output.shape[2]
        columns = given[..., op.first : op.first + op.gates * size]
        calls = []
        for at in reversed(range(steps)) if op.reverse else range(steps):
            # Of an LSTM the last row is the cell state, which each step reads and writes at the same places.
            result = output[at :: steps - at][:2] if op.cell == "lstm" else output[at : at + 1]
            inputs = (columns[at], weight, hidden, *own)
            calls.append(Call("step", partial(self._build, problem, schedule, cpu, inputs), (*inputs, result)))
            hidden = output[at]
            own = [output[steps]] if op.cell == "lstm" else own
        return calls

    def _build(
        self, problem: Problem[Recurrent], schedule: RecurrentSchedule, cpu: Cpu, inputs: Sequence[Array]
    ) -> Pipeline:
        # --- algorithm
        op, (_, batch, hidden) = problem.op, problem.output.shape
        packed = self.argument_shapes(problem, schedule, cpu)[1]
        block, lanes = packed[3], cpu.lanes
        given = part_input("given", inputs[0], FLOAT32)
        weight = whole_input("weight", packed)
        state, *own = (part_input(f"state{number}", array, FLOAT32) for number, array in enumerate(inputs[2:]))
        unit, row, gate, number, which = (hl.Var(name) for name in ("unit", "row", "gate", "number", "which"))
        # sums[unit of the block, gate, row, block]
        sums, cell, out = hl.Func("sums"), hl.Func("cell"), hl.Func("out")
        k = hl.RDom([(0, hidden)], "k").x
        sums[unit, gate, row, number] = f32(0.0)
        # Rows that fill the last tile compute what the last one does.
        there = hl.min(row, batch - 1) if batch % schedule.rows else row
        product = weight[unit, gate, k, number] * state[k, there]
        sums[unit, gate, row, number] = hl.Expr(sums[unit, gate, row, number]) + product

        gates = [
            _Gate(given[unit + index * hidden, row], hl.Expr(sums[unit % block, index, row, unit // block]))
            for index in range(op.gates)
        ]
        cell[unit, row] = _state(op.cell, gates, state[unit, row], own[0] if own else None, unit, row)
        value = hl.Expr(cell[unit, row])
        if op.cell == "lstm":
            value = hl.select(which == 0, sigmoid(gates[3].total) * tanh(value), value)
        out[unit, row, which] = value
        # --- schedule
        outer, inner, row_out = hl.Var("outer"), hl.Var("inner"), hl.Var("row_out")
        guard = hl.TailStrategy.GuardWithIf
        out.bound(which, 0, 2 if op.cell == "lstm" else 1).unroll(which)
        out.split(unit, outer, unit, block, guard).split(unit, inner, unit, lanes, guard)
        out.split(row, row_out, row, schedule.rows, guard)
        out.reorder(unit, which, inner, row, row_out, outer).vectorize(unit)
        vector = hl.Var("vector")
        cell.compute_at(out, inner).vectorize(unit, lanes, guard)
        sums.compute_at(out, row_out).bound(unit, 0, block).bound(gate, 0, op.gates)
        sums.bound_extent(row, schedule.rows)
        for stage in (sums, sums.update()):
            stage.split(unit, vector, unit, lanes).vectorize(unit).unroll(vector).unroll(gate).unroll(row)
        sums.update().reorder(unit, vector, gate, row, k)
        self._fix(out, batch, hidden, 2 if op.cell == "lstm" else 1)
        return Pipeline(out, (given, weight, state, *own))

    def _fix(self, out: hl.Func, batch: int, hidden: int, rows: int) -> None:
        """The strides of the output, but for that from the hidden to the cell state, which each step has its own of."""
        buffer = out.output_buffer()
        for dimension, (size, stride) in enumerate(((hidden, 1), (batch, hidden))):
            buffer.dim(dimension).set_bounds(0, size)
            if size > 1:
                buffer.dim(dimension).set_stride(stride)
        buffer.dim(2).set_bounds(0, rows)


@dataclass(frozen=True)
class _Gate:
    """What the inputs give to a gate, and what the hidden state does."""

    given: hl.Expr
    product: hl.Expr

    @property
    def total(self) -> hl.Expr:
        return self.given + self.product


def _state(
    cell: str, gates: Sequence[_Gate], hidden: hl.Expr, own: Source | None, unit: hl.Var, row: hl.Var
) -> hl.Expr:
    """The next cell state of an LSTM; the next hidden state of the others."""
    if cell == "lstm":
        assert own is not None
        return sigmoid(gates[1].total) * own[unit, row] + sigmoid(gates[0].total) * tanh(gates[2].total)
    if cell == "gru":
        assert own is not None
        new = tanh(gates[2].given + sigmoid(gates[0].total) * (gates[2].product + own[unit]))
        return new + sigmoid(gates[1].total) * (hidden - new)
    return tanh(gates[0].total) if cell == "rnn_tanh" else at_least(gates[0].total, f32(0.0))
