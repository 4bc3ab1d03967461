"""Convolutions with weights of one bit: signs exactly as the reference, floats within their bound, on any sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from netopt.kernels.binary_conv2d import BinaryConv2dKernel
from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.parts.conv2d_size import Conv2dSchedule
from netopt.numerics import BFLOAT16, FLOAT32, SIGNS
from netopt.ops import ROW_MAJOR, BinaryConv2d, Layout, Pointwise
from netopt.ops.spatial import Sides
from tests.kernels.binary import AVX2, cpu_of, each_cpu, expected_signs, judge, signs, with_epilogues
from tests.kernels.harness import assert_packing_is_undone, problem_of, run_kernel
from tests.kernels.images import randn
from tests.tolerance import assert_within

KERNEL = BinaryConv2dKernel()
RELU = Pointwise("relu")
ONES = (1, 1, 1, 1)
# Of which each compiles code.
few = settings(max_examples=8, derandomize=True, deadline=None)


def run(
    op: BinaryConv2d,
    tensors: list[torch.Tensor],
    *,
    halo: Sides = (0, 0, 0, 0),
    output: Sides = (0, 0, 0, 0),
    in_place: bool = False,
    **options: Any,
) -> torch.Tensor:
    """The kernel's result; `halo` is what the input has beyond its padding."""
    around = tuple(read + more for read, more in zip(op.padding, halo, strict=True))
    place = Layout(True, output)
    residual = place if in_place else Layout(True, (0, 1, 2, 0))
    constants = range(1, len(tensors) - op.has_residual)
    return run_kernel(
        op,
        tensors,
        constants=constants,
        layouts=[Layout(True, around), *[ROW_MAJOR] * len(constants), *[residual] * op.has_residual],  # type: ignore[arg-type]
        output=place,
        in_place=op.residual_index if in_place else None,
        **{"output_format": SIGNS if op.has_threshold else FLOAT32, **options},
    )


def assert_exact(op: BinaryConv2d, tensors: list[torch.Tensor], **options: Any) -> None:
    result = run(op, tensors, **options)
    if op.has_threshold:
        assert torch.equal(result, expected_signs(op, tensors))
    else:
        assert_within(result, judge(op, tensors))


windows = {
    "batch": st.integers(1, 2),
    "image": st.tuples(st.integers(1, 7), st.integers(1, 9)),
    "kernel": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "stride": st.tuples(st.integers(1, 3), st.integers(1, 2)),
    "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
    "padding": st.tuples(*[st.integers(0, 3)] * 4),
    "halo": st.tuples(*[st.integers(0, 1)] * 4),
    "output": st.tuples(*[st.integers(0, 2)] * 4),
}


def assume_fits(image: tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int], padding: Sides) -> None:
    for axis in (0, 1):
        assume(image[axis] + sum(padding[2 * axis : 2 * axis + 2]) > (kernel[axis] - 1) * dilation[axis])


@each_cpu
@few
@given(
    threshold=st.booleans(),
    channels=st.sampled_from([1, 5, 31, 32, 33, 64, 70]),
    outputs=st.sampled_from([1, 7, 32, 33, 70]),
    pad_one=st.booleans(),
    **windows,
)
def test_any_convolution_of_signs(
    name: str,
    threshold: bool,
    channels: int,
    outputs: int,
    pad_one: bool,
    batch: int,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Sides,
    halo: Sides,
    output: Sides,
) -> None:
    assume_fits(image, kernel, dilation, padding)
    op = BinaryConv2d(stride, padding, dilation, 1, pad_one, threshold)
    tensors = with_epilogues(op, signs(batch, channels, *image), signs(outputs, channels, *kernel, seed=1))
    if threshold:
        assert torch.equal(run(op, tensors, halo=halo, output=output, cpu=cpu_of(name)), expected_signs(op, tensors))
    else:
        sums = op.reference(*(tensor.float() for tensor in tensors))
        assert torch.equal(run(op, tensors, halo=halo, output=output, cpu=cpu_of(name)), sums)


@each_cpu
@pytest.mark.parametrize("pad_one", [False, True])
@pytest.mark.parametrize(("threshold", "groups"), [(True, 2), (False, 3)])
def test_groups_of_whole_words(name: str, pad_one: bool, threshold: bool, groups: int) -> None:
    """To floats the outputs of a group need no whole words."""
    outputs = 32 if threshold else 5
    op = BinaryConv2d((1, 2), (1, 0, 2, 1), (1, 1), groups, pad_one, threshold, has_scale=not threshold)
    tensors = with_epilogues(op, signs(2, 32 * groups, 5, 6), signs(outputs * groups, 32, 3, 2, seed=1))
    assert_exact(op, tensors, halo=(0, 1, 0, 1), output=(1, 0, 1, 2), cpu=cpu_of(name))


@each_cpu
@pytest.mark.parametrize("image", [(1, 1), (3, 7)])
@pytest.mark.parametrize("threshold", [False, True])
def test_one_by_one(name: str, image: tuple[int, int], threshold: bool) -> None:
    """A matrix product over all pixels, where there are no halos."""
    op = BinaryConv2d(has_threshold=threshold, has_scale=not threshold)
    tensors = with_epilogues(op, signs(2, 40, *image), signs(33, 40, 1, 1, seed=1))
    assert_exact(op, tensors, cpu=cpu_of(name))


def test_padding_by_zero_contributes_nothing() -> None:
    """An image of one pixel: a sum is that of its channels' products with the middle of the window."""
    op = BinaryConv2d((1, 1), ONES)
    x, weight = signs(1, 37, 1, 1), signs(9, 37, 3, 3, seed=1)
    middle = (x[0, :, 0, 0].int() * weight[:, :, 1, 1].int()).sum(1)
    assert run(op, [x, weight])[0, :, 0, 0].tolist() == middle.tolist()
    around = weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]].int().sum((1, 2))
    padded = run(BinaryConv2d((1, 1), ONES, pad_one=True), [x, weight])
    assert padded[0, :, 0, 0].tolist() == (middle + around).tolist()


@each_cpu
@pytest.mark.parametrize("channels", [64, 2048])
def test_the_largest_sums(name: str, channels: int) -> None:
    """All signs differ, and none does: a count of 8 in every byte, and the thresholds that decide."""
    most = 9 * channels
    op = BinaryConv2d((1, 1), (0, 0, 0, 0))
    x, weight = torch.ones(1, channels, 3, 3, dtype=torch.int8), torch.ones(34, channels, 3, 3, dtype=torch.int8)
    weight[::2] = -1
    assert run(op, [x, weight], cpu=cpu_of(name))[0, :, 0, 0].tolist() == [-most, most] * 17
    limits = BinaryConv2d(has_threshold=True)
    thresholds = torch.tensor([-most, most, 1 - most, most + 1] * 8 + [0, 0], dtype=torch.int32)
    signs_ = run(limits, [x, weight, thresholds], cpu=cpu_of(name))
    assert signs_[0, :, 0, 0].tolist() == [1, 1, -1, -1] * 8 + [-1, 1]


@pytest.mark.parametrize(
    ("name", "scale", "bias", "residual", "activation"),
    [
        ("host", True, False, False, None),
        ("host", False, True, False, RELU),
        ("host", False, False, True, None),
        *((name, True, True, True, Pointwise("hardtanh", (-2.0, 3.0))) for name in ("host", "AVX2")),
    ],
)
def test_ends_in_floats(name: str, scale: bool, bias: bool, residual: bool, activation: Pointwise | None) -> None:
    op = BinaryConv2d((1, 1), ONES, (1, 1), 1, False, False, scale, bias, residual, activation)
    tensors = with_epilogues(op, signs(2, 33, 4, 7), signs(21, 33, 3, 3, seed=1))
    assert_exact(op, tensors, output=(1, 2, 0, 1), cpu=cpu_of(name))
    if residual:
        assert_exact(op, tensors, output=(1, 2, 0, 1), in_place=True, cpu=cpu_of(name))


@pytest.mark.parametrize("format_", [FLOAT32, BFLOAT16])
def test_ends_in_bfloat16(format_: Any) -> None:
    """Scale, bias and residual are read in bfloat16, and what is written has either format."""
    op = BinaryConv2d((1, 1), ONES, (1, 1), 1, False, False, True, True, True, RELU)
    x, weight, *ends = with_epilogues(op, signs(1, 40, 5, 6), signs(20, 40, 3, 3, seed=1))
    tensors = [x, weight, *(end.bfloat16() for end in ends)]
    result = run(op, tensors, output_format=format_)
    assert result.dtype == (torch.float32 if format_ == FLOAT32 else torch.bfloat16)
    assert_within(result.float(), judge(op, tensors, format_))


@few
@given(
    channels=st.integers(1, 20),
    outputs=st.sampled_from([1, 7, 16, 33]),
    groups=st.integers(1, 2),
    ends=st.tuples(*[st.booleans()] * 3),
    narrow=st.tuples(st.booleans(), st.booleans()),
    **windows,
)
def test_any_convolution_of_floats(
    channels: int,
    outputs: int,
    groups: int,
    ends: tuple[bool, bool, bool],
    narrow: tuple[bool, bool],
    batch: int,
    image: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Sides,
    halo: Sides,
    output: Sides,
) -> None:
    """Inputs and outputs are float32 or bfloat16."""
    assume_fits(image, kernel, dilation, padding)
    op = BinaryConv2d(stride, padding, dilation, groups, False, False, *ends, RELU)
    x, weight = randn(batch, channels * groups, *image), signs(outputs * groups, channels, *kernel, seed=1)
    tensors = with_epilogues(op, x.bfloat16() if narrow[0] else x, weight)
    format_ = BFLOAT16 if narrow[1] else FLOAT32
    result = run(op, tensors, halo=halo, output=output, output_format=format_)
    assert_within(result.float(), judge(op, tensors, format_))


@each_cpu
@pytest.mark.parametrize("threshold", [False, True])
def test_every_schedule_that_the_table_offers(name: str, threshold: bool) -> None:
    """Lines of 5 pixels: tiles of several lines, too."""
    op = BinaryConv2d((1, 1), ONES, has_threshold=threshold)
    tensors = with_epilogues(op, signs(1, 40, 6, 5), signs(70, 40, 3, 3, seed=1))
    format_ = SIGNS if threshold else FLOAT32
    problem = problem_of(op, tensors, 1, [Layout(True, ONES)], Layout(True), format_)
    table = KERNEL.schedules(problem, cpu_of(name))
    assert len(set(table)) == len(table) == 8
    for schedule in table if name == "host" and threshold else table[::3]:
        assert_exact(op, tensors, schedule=schedule, cpu=cpu_of(name))


@pytest.mark.parametrize(
    ("schedule", "threshold"),
    [(Conv2dSchedule(10, 2, 1, pixels_first=True), False), (Conv2dSchedule(3, 4, 2), True)],
    ids=str,
)
def test_schedules_of_one_own(schedule: Conv2dSchedule, threshold: bool) -> None:
    op = BinaryConv2d((1, 1), ONES, has_threshold=threshold)
    tensors = with_epilogues(op, signs(2, 40, 3, 5), signs(70, 40, 3, 3, seed=1))
    assert_exact(op, tensors, schedule=schedule, output=(0, 1, 1, 0))


@pytest.mark.parametrize(("name", "threshold"), [("host", False), ("host", True), ("AVX2", True)])
def test_two_threads(name: str, threshold: bool) -> None:
    op = BinaryConv2d((1, 1), ONES, has_threshold=threshold)
    tensors = with_epilogues(op, signs(1, 64, 16, 12), signs(96, 64, 3, 3, seed=1))
    assert_exact(op, tensors, threads=2, output=ONES, cpu=cpu_of(name))


@pytest.mark.parametrize("cpu", [host_cpu(), AVX2])  # which need not run this code
@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (33, 1), (64, 2)])
@pytest.mark.parametrize("threshold", [False, True])
def test_packing_is_undone_to_the_bit(cpu: Cpu, channels: int, groups: int, threshold: bool) -> None:
    op = BinaryConv2d((1, 1), ONES, (1, 1), groups, False, threshold, not threshold, not threshold)
    tensors = with_epilogues(op, signs(1, channels, 4, 5), signs(64, channels // groups, 2, 3, seed=1))
    problem = problem_of(op, tensors, 1, [Layout(True, ONES)], Layout(True), SIGNS if threshold else FLOAT32)
    for schedule in KERNEL.schedules(problem, cpu):
        assert_packing_is_undone(problem, schedule, tensors, range(1, len(tensors)), cpu)


def test_packing_for_floats_is_undone_to_the_bit() -> None:
    op = BinaryConv2d(groups=2, has_scale=True, has_bias=True)
    tensors = with_epilogues(op, randn(1, 10, 4, 5), signs(6, 5, 2, 3, seed=1))
    problem = problem_of(op, tensors, 1, [Layout(True)], Layout(True))
    for schedule in KERNEL.schedules(problem, host_cpu())[:4]:
        assert_packing_is_undone(problem, schedule, tensors, (1, 2, 3))
