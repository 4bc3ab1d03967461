"""Pooling of packed signs, bit for bit: any, and all, of windows of every kind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.registry import KERNELS
from netopt.numerics import SIGNS
from netopt.ops import Layout, SignPool2d
from tests.kernels.binary import cpu_of, each_cpu, signs
from tests.kernels.harness import assert_packing_is_undone, problem_of, run_kernel

few = settings(max_examples=20, derandomize=True, deadline=None)


def assert_right(op: SignPool2d, x: torch.Tensor, *, halo: tuple[int, int, int, int], name: str = "host") -> None:
    direction = signs(x.shape[1], seed=5)
    result = run_kernel(
        op,
        [x, direction],
        constants=(1,),
        layouts=[Layout(True, halo)],
        output=Layout(True, halo[::-1]),
        output_format=SIGNS,
        cpu=cpu_of(name),
    )
    # In words of the definition, not by the op's reference: any, or all, of what lies within the image.
    top, _, left, _ = op.padding
    for row in range(result.shape[2]):
        for column in range(result.shape[3]):
            rows = slice(max(0, row * op.stride[0] - top), max(0, row * op.stride[0] - top + op.kernel[0]))
            columns = slice(max(0, column * op.stride[1] - left), max(0, column * op.stride[1] - left + op.kernel[1]))
            window = x[:, :, rows, columns].flatten(2) > 0
            wanted = torch.where(direction > 0, window.any(2), window.all(2))
            assert torch.equal(result[:, :, row, column] > 0, wanted)


@few
@given(
    batch=st.integers(1, 2),
    channels=st.sampled_from([1, 31, 32, 33, 64, 100]),
    size=st.tuples(st.integers(4, 7), st.integers(4, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.booleans(),
    halo=st.sampled_from([(0, 0, 0, 0), (1, 0, 2, 1)]),
)
def test_windows(
    batch: int,
    channels: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: bool,
    halo: tuple[int, int, int, int],
) -> None:
    padding = (kernel[0] - 1, kernel[0] // 2, kernel[1] // 2, kernel[1] - 1) if pads else (0, 0, 0, 0)
    assert_right(SignPool2d(kernel, stride, padding), signs(batch, channels, *size), halo=halo)


@each_cpu
def test_on_other_cpus(name: str) -> None:
    assert_right(SignPool2d((2, 2), (2, 2)), signs(1, 96, 6, 4), halo=(1, 1, 1, 1), name=name)


@pytest.mark.parametrize("direction", [1, -1])
def test_of_equal_signs_and_of_one_other(direction: int) -> None:
    """The smallest cases: a window of -1 with a +1 in it is +1 where any counts, and -1 where all do."""
    x = -torch.ones(1, 1, 2, 4, dtype=torch.int8)
    x[0, 0, 1, 2] = 1
    op = SignPool2d((2, 2), (2, 2))
    reference = op.reference(x.float(), torch.tensor([float(direction)]))
    assert reference.flatten().tolist() == [-1, direction]


def test_packing_is_undone_to_the_bit() -> None:
    tensors = [signs(1, 70, 4, 4), signs(70, seed=3)]
    problem = problem_of(SignPool2d((2, 2), (2, 2)), tensors, 1, [Layout(True)], Layout(True), SIGNS)
    (schedule,) = KERNELS[SignPool2d].schedules(problem, host_cpu())
    assert_packing_is_undone(problem, schedule, tensors, constants=(1,))
