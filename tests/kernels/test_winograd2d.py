"""Winograd's algorithm on its kernels against the reference: sizes that fit no tile, blocks, halos, threads."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.parts.tile import TileSchedule
from netopt.kernels.registry import KERNELS
from netopt.ops import CHANNELS_LAST, Layout, Pointwise, TensorType, Winograd2d
from netopt.ops import winograd2d as ops_winograd2d
from netopt.ops.winograd2d import transform_weight
from tests.kernels.convolutions import assert_matches, run, with_epilogues
from tests.kernels.harness import assert_packing_is_undone, problem_of
from tests.kernels.images import randn

KERNEL = KERNELS[Winograd2d]
RELU = Pointwise("relu")
PADDING = (1, 1, 1, 1)


def inputs_of(op: Winograd2d, x: tuple[int, ...], outputs: int) -> list[torch.Tensor]:
    return with_epilogues(op, randn(*x), transform_weight(randn(outputs, x[1], 3, 3, seed=1), op.tile))


@settings(max_examples=20, derandomize=True, deadline=None)
@given(
    tile=st.sampled_from([2, 4]),
    batch=st.integers(1, 3),
    image=st.tuples(st.integers(1, 11), st.integers(1, 13)),
    channels=st.tuples(st.integers(1, 19), st.integers(1, 35)),
    padding=st.tuples(*[st.integers(1, 2)] * 4),
    residual=st.booleans(),
    output_halo=st.tuples(*[st.integers(0, 2)] * 4),
)
def test_any_size(
    tile: int,
    batch: int,
    image: tuple[int, int],
    channels: tuple[int, int],
    padding: tuple[int, int, int, int],
    residual: bool,
    output_halo: tuple[int, int, int, int],
) -> None:
    op = Winograd2d(tile, padding, True, residual, RELU)
    tensors = inputs_of(op, (batch, channels[0], *image), channels[1])
    assert_matches(op, tensors, halo=(1, 0, 0, 2), output=Layout(True, output_halo))


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("block_bytes", [1, 40_000])
@pytest.mark.parametrize("in_place", [False, True])
def test_blocks_of_rows_and_of_images(
    tile: int, block_bytes: int, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole blocks and a smaller last one, each written beside the others and over the residual."""
    monkeypatch.setattr(ops_winograd2d, "_BLOCK_BYTES", block_bytes)
    op = Winograd2d(tile, PADDING, False, True, RELU)
    for x in ((1, 4, 27, 14), (5, 4, 6, 7)):
        tensors = inputs_of(op, x, 16)
        tiling = op.tiling(x, 16)
        assert (tiling.block_rows, tiling.block_images) != (tiling.rows, x[0])
        assert_matches(op, tensors, output=Layout(True, (1, 2, 1, 0)), in_place=in_place)


@pytest.mark.parametrize("schedule", [TileSchedule(1, 1, 1), TileSchedule(3, 2, 1, 2), TileSchedule(4, 3, 3)])
def test_any_schedule(schedule: TileSchedule) -> None:
    op = Winograd2d(4, PADDING, True, False, RELU)
    tensors = inputs_of(op, (1, 9, 10, 17), 40)
    assert_matches(op, tensors, schedule=schedule)


def test_the_default_schedules_fit_the_registers() -> None:
    op = Winograd2d(4, PADDING)
    tensors = inputs_of(op, (1, 4, 28, 28), 64)
    problem = problem_of(op, tensors, 1, [Layout(True, PADDING)], CHANNELS_LAST)
    table = KERNEL.schedules(problem, host_cpu())
    assert len(set(table)) == len(table) > 1
    for schedule in table:
        assert schedule.rows * schedule.vectors + schedule.vectors + 1 <= host_cpu().registers


@pytest.mark.parametrize("tile", [2, 4])
def test_packing_is_undone_to_the_bit(tile: int) -> None:
    op = Winograd2d(tile, PADDING, True)
    tensors = inputs_of(op, (1, 5, 8, 8), 21)
    problem = problem_of(op, tensors, 1, [Layout(True, PADDING)], CHANNELS_LAST)
    for schedule in KERNEL.schedules(problem, host_cpu())[:4]:
        assert_packing_is_undone(problem, schedule, tensors)


def test_threads_give_the_same_bits() -> None:
    op = Winograd2d(4, PADDING, True, False, RELU)
    tensors = inputs_of(op, (1, 32, 40, 40), 32)
    results = [run(op, tensors, threads=n, output=Layout(True, PADDING)) for n in (1, 2, 3)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_nan_reaches_no_tile_that_does_not_read_it() -> None:
    """Within a tile it may: all of a tile is computed from all of what the tile reads."""
    op = Winograd2d(4, PADDING)
    tensors = inputs_of(op, (1, 4, 16, 16), 8)
    tensors[0][0, 2, 6, 6] = float("nan")
    result = run(op, tensors).isnan()[0]
    direct = torch.zeros(16, 16, dtype=torch.bool)
    direct[5:8, 5:8] = True
    tile = torch.zeros(16, 16, dtype=torch.bool)
    tile[4:8, 4:8] = True
    assert (result | ~direct).all(), "a NaN was lost"
    assert not (result & ~tile).any(), "a NaN left its tile"


def test_a_graph_needs_the_scratch_memory_of_one_block() -> None:
    op = Winograd2d(4, PADDING, True)
    types = [TensorType((1, 64, 224, 224)), TensorType((64, 64, 6, 6)), TensorType((64,))]
    whole = dataclasses.replace(types[0], shape=(4, 64, 224, 224))
    assert op.scratch_bytes(types) == op.scratch_bytes([whole, *types[1:]]) > 0


@pytest.mark.parametrize("tile", [2, 4])
def test_an_outlier_spoils_its_tiles_as_far_as_the_page_says(tile: int) -> None:
    """Each output is off by up to a share of the largest number in its tile: beside an outlier that is much."""
    op, size = Winograd2d(tile, PADDING), 14
    x, weight = randn(1, 16, size, size), randn(8, 16, 3, 3, seed=1)
    x[0, :, 6, 6] = 1e6
    direct = F.conv2d(x.double(), weight.double(), padding=1)
    error = (run(op, [x, transform_weight(weight, tile)]).double() - direct).abs()
    near = torch.zeros(size, size, dtype=torch.bool)
    near[7 - tile - 2 : 7 + tile + 1, 7 - tile - 2 : 7 + tile + 1] = True
    growth = {2: 81, 4: 36_100}[tile]
    # (C + 14) roundings of 2^-24, in sums of 9 products a channel.
    bound = growth * (16 + 14) * 2.0**-24 * 9 * 16 * float(weight.abs().max())
    assert error[..., near].max() < bound * 1e6
    assert error[..., ~near].max() < bound * float(x[x < 1e5].abs().max())
    # Beside the outlier, where a direct convolution has no error of its size, it is there.
    assert error[..., near].max() > 1e3 * error[..., ~near].max()
