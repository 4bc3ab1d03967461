"""Dense layers: every schedule of the table against the reference, on sizes that fit no tile."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.parts.tile import TileSchedule
from netopt.kernels.registry import KERNELS
from netopt.ops import Dense, Pointwise
from tests.kernels.harness import assert_packing_is_undone, problem_of, run_kernel
from tests.tolerance import assert_within, judge_op

KERNEL = KERNELS[Dense]
quick = settings(max_examples=25, derandomize=True, deadline=None)


def inputs_of(op: Dense, rows: int, inputs: int, outputs: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows * inputs + outputs)
    shapes = [(rows, inputs), (outputs, inputs), *[(outputs,)] * op.has_bias, *[(rows, outputs)] * op.has_residual]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def constants_of(op: Dense) -> tuple[int, ...]:
    return (1, 2) if op.has_bias else (1,)


def assert_matches(
    op: Dense, tensors: list[torch.Tensor], schedule: TileSchedule | None = None, threads: int = 1
) -> None:
    residual = op.residual_index if op.has_residual else None
    result = run_kernel(op, tensors, constants=constants_of(op), schedule=schedule, threads=threads, in_place=residual)
    assert_within(result, judge_op(op, tensors))


@quick
@given(
    rows=st.integers(1, 21),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    residual=st.booleans(),
    activation=st.sampled_from([None, Pointwise("relu"), Pointwise("gelu")]),
)
def test_any_size(
    rows: int, inputs: int, outputs: int, bias: bool, residual: bool, activation: Pointwise | None
) -> None:
    op = Dense(bias, residual, activation)
    assert_matches(op, inputs_of(op, rows, inputs, outputs))


SCHEDULES = [
    TileSchedule(rows, vectors, panel, unroll, blocks)
    for rows, vectors, panel in [(1, 1, 1), (1, 8, 1), (1, 6, 2), (4, 3, 1), (4, 3, 3), (6, 2, 2), (3, 4, 2)]
    for unroll, blocks in [(1, 1), (2, 1), (1, 3), (2, 4)]
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_any_schedule(schedule: TileSchedule) -> None:
    """84 inputs divide by 3 and 4 blocks; 55 rows leave whole tiles after a block, and rows after the tiles."""
    op = Dense(True, True, Pointwise("relu"))
    assert_matches(op, inputs_of(op, 55, 84, 45), schedule)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 300, 10), (1, 512, 100), (32, 2048, 40), (5, 64, 33)])
def test_every_schedule_that_the_table_offers(rows: int, inputs: int, outputs: int) -> None:
    op = Dense(True)
    tensors = inputs_of(op, rows, inputs, outputs)
    table = KERNEL.schedules(problem_of(op, tensors), host_cpu())
    assert len(set(table)) == len(table) > 1
    for schedule in table[:: max(1, len(table) // 8)]:
        assert_matches(op, tensors, schedule)


@pytest.mark.parametrize(
    "cpu", [Cpu("a", 4, 16), Cpu("b", 8, 16), Cpu("c", 16, 32)], ids=lambda cpu: f"{cpu.lanes} lanes"
)
@pytest.mark.parametrize(("rows", "outputs"), list(itertools.product((1, 2, 7, 32, 197), (1, 10, 1000))))
def test_tiles_fit_the_registers(cpu: Cpu, rows: int, outputs: int) -> None:
    op = Dense()
    for schedule in KERNEL.schedules(problem_of(op, inputs_of(op, rows, 2048, outputs)), cpu):
        assert schedule.vectors % schedule.panel == 0
        assert 2048 % schedule.blocks == 0
        tile = schedule.rows * schedule.vectors + 1 + (schedule.vectors if rows > 1 else 0)
        assert tile <= cpu.registers


@pytest.mark.parametrize("rows", [1, 32, 50])
@pytest.mark.parametrize("outputs", [1000, 1024, 37])
def test_threads_give_the_same_bits(rows: int, outputs: int) -> None:
    op = Dense(True, False, Pointwise("relu"))
    tensors = inputs_of(op, rows, 1024, outputs)
    results = [run_kernel(op, tensors, constants=(1, 2), threads=threads) for threads in (1, 2, 3)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_leading_axes_and_none() -> None:
    op = Dense(True)
    for shape in [(2, 3, 5, 20), (20,), (1, 1, 20)]:
        x, (_, weight, bias) = torch.randn(shape), inputs_of(op, 1, 20, 11)
        flat = run_kernel(op, [x.reshape(-1, 20), weight, bias], constants=(1, 2))
        result = run_kernel(op, [x, weight, bias], constants=(1, 2))
        assert result.shape == (*shape[:-1], 11)
        assert torch.equal(result.reshape(-1, 11), flat)


@pytest.mark.parametrize("schedule", SCHEDULES[::5], ids=str)
def test_packing_is_undone_to_the_bit(schedule: TileSchedule) -> None:
    op = Dense(True)
    tensors = inputs_of(op, 3, 84, 45)
    problem = problem_of(op, tensors)
    assert_packing_is_undone(problem, schedule, tensors)


def test_nan_in_a_row_stays_in_that_row() -> None:
    op = Dense(True, False, Pointwise("relu"))
    tensors = inputs_of(op, 5, 30, 20)
    tensors[0][2, 11] = float("nan")
    assert run_kernel(op, tensors, constants=(1, 2)).isnan().all(1).tolist() == [False, False, True, False, False]
