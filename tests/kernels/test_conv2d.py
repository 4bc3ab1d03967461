"""Convolutions against the reference: every kind, in every layout, on sizes that fit no tile."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.parts.conv2d_size import Conv2dSchedule
from netopt.kernels.registry import KERNELS
from netopt.ops import CHANNELS_LAST, Conv2d, Layout, Pointwise
from tests.kernels.convolutions import assert_matches, with_epilogues
from tests.kernels.harness import assert_packing_is_undone, problem_of, run_kernel
from tests.kernels.images import randn

KERNEL = KERNELS[Conv2d]
RELU = Pointwise("relu")
quick = settings(max_examples=30, derandomize=True, deadline=None)


def inputs_of(op: Conv2d, x: tuple[int, ...], outputs: int, kernel: tuple[int, int]) -> list[torch.Tensor]:
    return with_epilogues(op, randn(*x), randn(outputs, x[1] // op.groups, *kernel, seed=1))


sizes = st.integers(1, 3)


@quick
@given(
    batch=st.integers(1, 2),
    image=st.tuples(st.integers(5, 11), st.integers(5, 19)),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 19)),
    groups=st.integers(1, 3),
    kernel=st.tuples(sizes, sizes),
    stride=st.tuples(sizes, sizes),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    residual=st.booleans(),
    output_halo=st.tuples(*[st.integers(0, 1)] * 4),
    pitches=st.tuples(*[st.sampled_from([0, 61])] * 2),
)
def test_any_convolution(
    batch: int,
    image: tuple[int, int],
    channels: tuple[int, int],
    groups: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int, int, int],
    residual: bool,
    output_halo: tuple[int, int, int, int],
    pitches: tuple[int, int],
) -> None:
    op = Conv2d(stride, padding, dilation, groups, True, residual, RELU)
    tensors = inputs_of(op, (batch, channels[0] * groups, *image), channels[1] * groups, kernel)
    output = Layout(True, output_halo, pitches[1])
    assert_matches(op, tensors, halo=(1, 0, 0, 2), pitch=pitches[0], output=output)


@pytest.mark.parametrize("channels", [1, 4, 8, 13, 32, 40])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("pitch", [0, 48])
def test_depthwise(channels: int, stride: tuple[int, int], residual: bool, pitch: int) -> None:
    op = Conv2d(stride, (1, 1, 1, 1), (1, 1), channels, True, residual, Pointwise("hardtanh", (0.0, 6.0)))
    tensors = inputs_of(op, (2, channels, 9, 11), channels, (3, 3))
    assert_matches(op, tensors, pitch=pitch, output=Layout(True, (1, 1, 1, 1), pitch))


@pytest.mark.parametrize("multiplier", [2, 3])
def test_depthwise_with_a_multiplier(multiplier: int) -> None:
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 5, True)
    assert_matches(op, inputs_of(op, (1, 5, 6, 7), 5 * multiplier, (3, 3)))


@pytest.mark.parametrize("image", [(1, 1), (7, 7), (3, 50)])
@pytest.mark.parametrize("residual", [False, True])
def test_one_by_one_is_a_matrix_product_over_all_pixels(image: tuple[int, int], residual: bool) -> None:
    op = Conv2d(has_bias=True, has_residual=residual, activation=RELU)
    tensors = inputs_of(op, (2, 20, *image), 33, (1, 1))
    assert_matches(op, tensors)
    assert_matches(op, tensors, pitch=37, output=Layout(True, pitch=41))
    if residual:
        assert_matches(op, tensors, in_place=True)


@pytest.mark.parametrize(("channels", "groups"), [(16, 1), (16, 16), (21, 21)])
def test_residual_in_place_with_a_halo(channels: int, groups: int) -> None:
    """The output takes the residual's memory, zeros around it included."""
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), groups, True, True, RELU)
    tensors = inputs_of(op, (1, channels, 9, 13), channels, (3, 3))
    assert_matches(op, tensors, output=Layout(True, (1, 2, 0, 1)), in_place=True)


@pytest.mark.parametrize("channels", [5, 16, 48])
@pytest.mark.parametrize("halo", [(0, 0, 0, 0), (1, 2, 0, 1)])
def test_one_by_one_depthwise(channels: int, halo: tuple[int, int, int, int]) -> None:
    """Batch normalization that no layer takes; it may write over its input."""
    op = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), channels, True, False, RELU)
    tensors = inputs_of(op, (2, channels, 7, 9), channels, (1, 1))
    assert_matches(op, tensors, halo=halo, output=Layout(True, halo))
    assert_matches(op, tensors, halo=(0, 0, 1, 0), output=Layout(True, halo))
    layouts = [Layout(True, halo), Layout(), Layout()]
    options = {"constants": (1, 2), "layouts": layouts, "output": layouts[0]}
    over_input = run_kernel(op, tensors, in_place=0, **options)  # type: ignore[arg-type]
    assert torch.equal(over_input, run_kernel(op, tensors, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
@pytest.mark.parametrize(("vectors", "panel"), [(1, 1), (2, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("unroll", [1, 2])
def test_any_schedule(rows: int, vectors: int, panel: int, unroll: int) -> None:
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, True, True, RELU)
    tensors = inputs_of(op, (1, 5, 4, 11), 29, (3, 3))
    assert_matches(
        op, tensors, schedule=Conv2dSchedule(rows, vectors, panel, unroll), output=Layout(True, (0, 1, 1, 0))
    )


@pytest.mark.parametrize(("rows", "height"), [(10, 5), (15, 7), (10, 1), (20, 3)])
@pytest.mark.parametrize("pixels_first", [False, True])
def test_a_tile_over_several_lines(rows: int, height: int, pixels_first: bool) -> None:
    """Lines of 5 pixels, with a rest of lines, and of fewer lines than the tile has."""
    op = Conv2d((2, 1), (1, 1, 1, 1), (1, 1), 2, True, True, RELU)
    tensors = inputs_of(op, (2, 6, 2 * height, 5), 40, (3, 3))
    schedule = Conv2dSchedule(rows, 1, 1, pixels_first=pixels_first)
    assert_matches(op, tensors, schedule=schedule, output=Layout(True, (0, 1, 2, 1)))
    assert_matches(op, tensors, schedule=schedule, output=Layout(True, (0, 1, 2, 1)), in_place=True)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("pixels_first", [False, True])
def test_the_order_of_loops_changes_no_bit(kernel: int, pixels_first: bool) -> None:
    op = Conv2d((1, 1), (kernel // 2,) * 4, (1, 1), 1, True, False, RELU)
    tensors = inputs_of(op, (2, 20, 30, 17), 40, (kernel, kernel))
    layouts = [Layout(True, op.padding)]
    results = [
        run_kernel(
            op, tensors, constants=(1, 2), schedule=schedule, threads=threads, layouts=layouts, output=CHANNELS_LAST
        )
        for schedule, threads in (
            (Conv2dSchedule(6, 2, 2), 1),
            (Conv2dSchedule(5, 2, 1, pixels_first=pixels_first), 1),
            (Conv2dSchedule(5, 1, 1, pixels_first=pixels_first, ahead=7), 3),
        )
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    ("x", "outputs", "groups"), [((1, 24, 7, 7), 40, 1), ((2, 32, 5, 9), 32, 32), ((1, 12, 6, 6), 8, 4)]
)
def test_every_schedule_that_the_table_offers(x: tuple[int, ...], outputs: int, groups: int) -> None:
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), groups, True)
    tensors = inputs_of(op, x, outputs, (3, 3))
    problem = problem_of(op, tensors, 1, [Layout(True, op.padding)], CHANNELS_LAST)
    table = KERNEL.schedules(problem, host_cpu())
    assert len(set(table)) == len(table) > 1
    for schedule in table[:: max(1, len(table) // 6)]:
        assert_matches(op, tensors, schedule=schedule)


@pytest.mark.parametrize(
    "cpu", [Cpu("a", 4, 16), Cpu("b", 8, 16), Cpu("c", 16, 32)], ids=lambda cpu: f"{cpu.lanes} lanes"
)
@pytest.mark.parametrize("width", [1, 7, 14, 56])
@pytest.mark.parametrize("outputs", [10, 64, 1000])
def test_tiles_fit_the_registers(cpu: Cpu, width: int, outputs: int) -> None:
    op = Conv2d()
    problem = problem_of(op, inputs_of(op, (1, 8, 3, width), outputs, (1, 1)), 1, [CHANNELS_LAST], CHANNELS_LAST)
    for schedule in KERNEL.schedules(problem, cpu):
        assert schedule.rows * schedule.vectors + schedule.vectors + 1 <= cpu.registers


@pytest.mark.parametrize(("groups", "kernel"), [(1, (3, 3)), (4, (2, 3)), (24, (3, 3))])
def test_packing_is_undone_to_the_bit(groups: int, kernel: tuple[int, int]) -> None:
    op = Conv2d((1, 1), (0, 0, 0, 0), (1, 1), groups, True)
    tensors = inputs_of(op, (1, 24, 6, 6), 24 if groups == 24 else 20, kernel)
    problem = problem_of(op, tensors, 1, [CHANNELS_LAST], CHANNELS_LAST)
    for schedule in KERNEL.schedules(problem, host_cpu())[:6]:
        assert_packing_is_undone(problem, schedule, tensors)


@pytest.mark.parametrize(("channels", "groups"), [(48, 1), (64, 64), (60, 60)])
def test_threads_give_the_same_bits(channels: int, groups: int) -> None:
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), groups, True, False, RELU)
    tensors = inputs_of(op, (1, channels, 20, 24), channels, (3, 3))
    results = [
        run_kernel(
            op,
            tensors,
            constants=(1, 2),
            threads=n,
            layouts=[Layout(True, op.padding)],
            output=Layout(True, (1, 1, 1, 1)),
        )
        for n in (1, 2, 3)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_nan_reaches_the_pixels_around_it_and_no_others() -> None:
    op = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), 1, True, False, RELU)
    tensors = inputs_of(op, (1, 4, 7, 9), 8, (3, 3))
    tensors[0][0, 2, 3, 4] = float("nan")
    result = run_kernel(op, tensors, constants=(1, 2), layouts=[Layout(True, op.padding)], output=CHANNELS_LAST)
    expected = torch.zeros(7, 9, dtype=torch.bool)
    expected[2:5, 3:6] = True
    assert torch.equal(result.isnan()[0], expected.expand(8, 7, 9))


AVX512 = Cpu("avx512", 16, 32)


@pytest.mark.parametrize(
    ("x", "outputs", "kernel", "expected"),
    [
        # Lines of 7 pixels: two of them in a tile. What fits the cache is passed once, in tiles of whole pixels.
        ((1, 512, 7, 7), 512, 3, Conv2dSchedule(14, 2, 1, ahead=64)),
        ((1, 256, 14, 14), 256, 3, Conv2dSchedule(14, 2, 1, ahead=64)),
        ((1, 64, 14, 14), 384, 1, Conv2dSchedule(14, 2, 1, ahead=64)),
        ((1, 16, 112, 112), 96, 1, Conv2dSchedule(4, 6, 1, pixels_first=True)),
        ((1, 32, 32, 32), 32, 3, Conv2dSchedule(8, 2, 1, pixels_first=True)),
    ],
)
def test_defaults_are_those_that_were_measured(
    x: tuple[int, ...], outputs: int, kernel: int, expected: Conv2dSchedule
) -> None:
    op = Conv2d((1, 1), (kernel // 2,) * 4, (1, 1), 1, True, False, RELU)
    layouts = [Layout(True, op.padding)]
    problem = problem_of(op, inputs_of(op, x, outputs, (kernel, kernel)), 1, layouts, Layout(True, (1, 1, 1, 1)))
    assert KERNEL.schedules(problem, AVX512)[0] == expected
