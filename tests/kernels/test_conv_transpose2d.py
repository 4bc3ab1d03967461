"""Transposed convolutions against the reference, with every parameter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.registry import KERNELS
from netopt.ops import CHANNELS_LAST, ConvTranspose2d, Layout, Pointwise
from tests.kernels.convolutions import assert_matches, run, with_epilogues
from tests.kernels.harness import assert_packing_is_undone, problem_of
from tests.kernels.images import randn

KERNEL = KERNELS[ConvTranspose2d]
RELU = Pointwise("relu")
quick = settings(max_examples=20, derandomize=True, deadline=None)


def inputs_of(op: ConvTranspose2d, x: tuple[int, ...], outputs: int, kernel: tuple[int, int]) -> list[torch.Tensor]:
    return with_epilogues(op, randn(*x), randn(x[1], outputs // op.groups, *kernel, seed=1))


small = st.integers(1, 3)


@quick
@given(
    image=st.tuples(st.integers(3, 5), st.integers(3, 9)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 19)),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(small, small),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 1)] * 4),
    output_padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    residual=st.booleans(),
    output_halo=st.tuples(*[st.integers(0, 1)] * 4),
)
def test_any_transposed_convolution(
    image: tuple[int, int],
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int, int, int],
    output_padding: tuple[int, int],
    residual: bool,
    output_halo: tuple[int, int, int, int],
) -> None:
    op = ConvTranspose2d(stride, padding, output_padding, dilation, groups, residual, residual, RELU)
    tensors = inputs_of(op, (2, channels[0] * groups, *image), channels[1] * groups, kernel)
    assert_matches(op, tensors, halo=(1, 0, 0, 2), output=Layout(True, output_halo))


@pytest.mark.parametrize(("kernel", "padding"), [(4, 1), (2, 0), (3, 1)])
def test_the_usual_ones(kernel: int, padding: int) -> None:
    op = ConvTranspose2d((2, 2), (padding,) * 4, (kernel % 2,) * 2, has_bias=True, activation=RELU)
    tensors = inputs_of(op, (1, 8, 6, 7), 33, (kernel, kernel))
    assert_matches(op, tensors)
    expected = torch.nn.functional.conv_transpose2d(*tensors, 2, padding, kernel % 2).relu()
    torch.testing.assert_close(op.reference(*tensors), expected)


def test_residual_in_place() -> None:
    op = ConvTranspose2d((2, 2), (1, 1, 1, 1), has_bias=True, has_residual=True)
    assert_matches(op, inputs_of(op, (1, 4, 5, 6), 20, (3, 3)), output=Layout(True, (1, 0, 0, 1)), in_place=True)


def test_schedules_of_the_table_and_threads() -> None:
    op = ConvTranspose2d((2, 2), (1, 1, 1, 1), has_bias=True)
    tensors = inputs_of(op, (1, 24, 9, 11), 40, (4, 4))
    problem = problem_of(op, tensors, 1, [CHANNELS_LAST], CHANNELS_LAST)
    table = KERNEL.schedules(problem, host_cpu())
    assert len(set(table)) == len(table) > 1
    for schedule in table[:: max(1, len(table) // 4)]:
        assert_matches(op, tensors, schedule=schedule)
    assert torch.equal(run(op, tensors, threads=1), run(op, tensors, threads=2))


@pytest.mark.parametrize("groups", [1, 4])
def test_packing_is_undone_to_the_bit(groups: int) -> None:
    op = ConvTranspose2d((2, 3), groups=groups, has_bias=True)
    tensors = inputs_of(op, (1, 8, 4, 5), 12, (3, 4))
    problem = problem_of(op, tensors, 1, [CHANNELS_LAST], CHANNELS_LAST)
    schedule = KERNEL.schedules(problem, host_cpu())[0]
    assert_packing_is_undone(problem, schedule, tensors)


def test_elements_that_reach_nothing_are_packed_too() -> None:
    """Another layer that shares the weight may read them, and a file holds them."""
    op = ConvTranspose2d((1, 1), (1, 1, 1, 1), has_bias=True)
    tensors = inputs_of(op, (1, 2, 1, 1), 3, (3, 3))
    problem = problem_of(op, tensors, 1, [CHANNELS_LAST], CHANNELS_LAST)
    assert_packing_is_undone(problem, KERNEL.schedules(problem, host_cpu())[0], tensors)
    assert_matches(op, tensors)


def test_nan_reaches_the_pixels_that_it_adds_to_and_no_others() -> None:
    op = ConvTranspose2d((3, 3))
    tensors = inputs_of(op, (1, 2, 3, 4), 5, (2, 2))
    tensors[0][0, 1, 1, 2] = float("nan")
    expected = torch.zeros(8, 11, dtype=torch.bool)
    expected[3:5, 6:8] = True
    assert torch.equal(run(op, tensors).isnan()[0], expected.expand(5, 8, 11))
