"""Dense layers with weights of one bit: signs exactly as the reference, floats within their bound, any rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.binary_dense import BinaryDenseKernel
from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.numerics import BFLOAT16, FLOAT32, SIGNS
from netopt.ops import BinaryDense, Pointwise
from tests.kernels.binary import AVX2, cpu_of, each_cpu, expected_signs, judge, signs, with_epilogues
from tests.kernels.harness import assert_packing_is_undone, problem_of, run_kernel
from tests.kernels.images import randn
from tests.tolerance import assert_within

KERNEL = BinaryDenseKernel()
RELU = Pointwise("relu")
# Of which each compiles code.
few = settings(max_examples=7, derandomize=True, deadline=None)


def run(op: BinaryDense, tensors: list[torch.Tensor], **options: Any) -> torch.Tensor:
    options = {"output_format": SIGNS if op.has_threshold else FLOAT32, **options}
    return run_kernel(op, tensors, constants=range(1, len(tensors) - op.has_residual), **options)


def assert_right(op: BinaryDense, tensors: list[torch.Tensor], **options: Any) -> None:
    """Signs are equal, floats within their bound."""
    result = run(op, tensors, **options)
    if op.has_threshold:
        assert torch.equal(result, expected_signs(op, tensors))
    else:
        format_ = options.get("output_format", FLOAT32)
        assert_within(result.float(), judge(op, tensors, format_))


@each_cpu
@few
@given(
    rows=st.sampled_from([1, 2, 3, 7, 20]),
    inputs=st.sampled_from([1, 31, 32, 33, 64, 100, 300]),
    outputs=st.sampled_from([1, 10, 32, 33, 64, 100]),
    threshold=st.booleans(),
)
def test_any_size_of_signs(name: str, rows: int, inputs: int, outputs: int, threshold: bool) -> None:
    op = BinaryDense(threshold)
    tensors = with_epilogues(op, signs(rows, inputs), signs(outputs, inputs, seed=1))
    if threshold:
        assert torch.equal(run(op, tensors, cpu=cpu_of(name)), expected_signs(op, tensors))
    else:
        assert torch.equal(run(op, tensors, cpu=cpu_of(name)), tensors[0].float() @ tensors[1].float().T)


@each_cpu
@few
@given(
    rows=st.sampled_from([1, 2, 4, 5, 9]),
    inputs=st.sampled_from([1, 31, 32, 33, 64, 77]),
    outputs=st.sampled_from([1, 10, 16, 33]),
    ends=st.tuples(*[st.booleans()] * 3),
    narrow=st.booleans(),
)
def test_any_size_of_floats(
    name: str, rows: int, inputs: int, outputs: int, ends: tuple[bool, bool, bool], narrow: bool
) -> None:
    """Up to four rows bits flip the signs of numbers, from five on floats are multiplied; in either format."""
    op = BinaryDense(False, *ends, RELU)
    x = randn(rows, inputs)
    tensors = with_epilogues(op, x.bfloat16() if narrow else x, signs(outputs, inputs, seed=1))
    format_ = BFLOAT16 if narrow else FLOAT32
    assert_right(op, tensors, output_format=format_, cpu=cpu_of(name))


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_weights_flip_signs_and_no_more(rows: int) -> None:
    """Numbers that are the sum exactly, wherever a term is 0, -0 or large."""
    x = torch.zeros(rows, 70)
    x[0, [3, 40, 69]] = torch.tensor([1.0, -(2.0**20), 2.0**-3])
    x[-1, 32:] = -0.0
    tensors = [x, signs(20, 70, seed=1)]
    assert torch.equal(run(BinaryDense(), tensors), x @ tensors[1].float().T)


@pytest.mark.parametrize("rows", [2, 6])
def test_nan_in_a_row_stays_in_that_row(rows: int) -> None:
    x = randn(rows, 40)
    x[1, 33] = float("nan")
    found = run(BinaryDense(), [x, signs(20, 40, seed=1)]).isnan()
    assert found.all(1).tolist() == found.any(1).tolist() == [row == 1 for row in range(rows)]


@pytest.mark.parametrize("rows", [1, 3, 9])
@pytest.mark.parametrize("inputs", ["signs", "floats"])
def test_ends_in_place_of_the_residual(rows: int, inputs: str) -> None:
    op = BinaryDense(False, True, True, True, Pointwise("hardtanh", (-2.0, 3.0)))
    x = signs(rows, 40) if inputs == "signs" else randn(rows, 40)
    assert_right(op, with_epilogues(op, x, signs(21, 40, seed=1)), in_place=op.residual_index)


def test_ends_in_bfloat16() -> None:
    op = BinaryDense(False, True, True, False)
    for x in (signs(3, 40), randn(2, 40)):
        _, weight, *ends = with_epilogues(op, x, signs(21, 40, seed=1))
        assert_right(op, [x, weight, *(end.bfloat16() for end in ends)], output_format=BFLOAT16)


@pytest.mark.parametrize(("rows", "inputs"), [(1, "signs"), (7, "signs"), (2, "floats")])
@pytest.mark.parametrize("name", ["host", "AVX2"])
def test_every_schedule_that_the_table_offers(rows: int, inputs: str, name: str) -> None:
    thresholds = (False, True) if inputs == "signs" else (False,)
    for op in map(BinaryDense, thresholds):
        x = signs(rows, 70) if inputs == "signs" else randn(rows, 70)
        tensors = with_epilogues(op, x, signs(100, 70, seed=1))
        problem = problem_of(op, tensors, output_format=SIGNS if op.has_threshold else FLOAT32)
        table = KERNEL.schedules(problem, cpu_of(name))
        assert len(set(table)) == len(table) > 1
        for schedule in table if name == "host" and op.has_threshold else table[::3]:
            assert_right(op, tensors, schedule=schedule, cpu=cpu_of(name))


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("threshold", [False, True])
def test_two_threads(rows: int, threshold: bool) -> None:
    op = BinaryDense(threshold)
    tensors = with_epilogues(op, signs(rows, 4096), signs(520, 4096, seed=1))
    assert_right(op, tensors, threads=2)


@pytest.mark.parametrize("leading", [(), (1,), (2, 3)])
@pytest.mark.parametrize("threshold", [False, True])
def test_leading_axes_and_none(leading: tuple[int, ...], threshold: bool) -> None:
    op = BinaryDense(threshold)
    tensors = with_epilogues(op, signs(*leading, 40), signs(33, 40, seed=1))
    assert_right(op, tensors)


@pytest.mark.parametrize("cpu", [host_cpu(), AVX2])  # which need not run this code
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("inputs", ["signs", "floats"])
def test_packing_is_undone_to_the_bit(cpu: Cpu, rows: int, inputs: str) -> None:
    ops = [BinaryDense(False, True, True)] + [BinaryDense(True)] * (inputs == "signs")
    for op in ops:
        x = signs(rows, 45) if inputs == "signs" else randn(rows, 45)
        tensors = with_epilogues(op, x, signs(70, 45, seed=1))
        problem = problem_of(op, tensors, output_format=SIGNS if op.has_threshold else FLOAT32)
        for schedule in KERNEL.schedules(problem, cpu):
            assert_packing_is_undone(problem, schedule, tensors, range(1, len(tensors)), cpu)
