"""Packed panels of signs, and sums of counts in bytes, which never overflow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.parts.binary_tile import (
    Unit,
    _run,
    fits,
    join,
    joined_bytes,
    pack_panels,
    parts_of,
    tiles,
    unpack_panels,
)
from netopt.numerics import SIGNS
from netopt.ops import BinaryConv2d, BinaryDense, Layout
from tests.kernels.binary import AVX2, AVX512, cpu_of, signs
from tests.kernels.harness import run_kernel

POPCOUNT = Cpu("popcount", 16, 32, has_popcount=True)
NEON = Cpu("neon", 4, 32)
quick = settings(max_examples=40, derandomize=True, deadline=None)


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [(POPCOUNT, Unit(32, 16)), (AVX512, Unit(8, 64)), (AVX2, Unit(8, 32)), (NEON, Unit(8, 16))],
    ids=["popcount", "AVX-512", "AVX2", "Neon"],
)
def test_the_unit_that_suits_a_cpu(cpu: Cpu, expected: Unit) -> None:
    assert Unit.of(cpu) == expected


@pytest.mark.parametrize(("channels", "words"), [(1, 1), (31, 1), (32, 1), (33, 2), (8192, 256)])
def test_units_of_the_words_of_some_channels(channels: int, words: int) -> None:
    assert Unit(32, 16).steps(channels) == words
    assert Unit(8, 32).steps(channels) == 4 * words


def test_a_word_is_seen_as_its_bytes_from_the_lowest() -> None:
    words = np.array([[0x04030201, 0x08070605]], np.uint32)
    assert Unit(8, 32).view(words).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert Unit(32, 16).view(words).tolist() == words.tolist()


def test_where_the_bits_of_a_panel_lie() -> None:
    """Output 37 of 40 in panels of 16: the sixth of the third; its input 33 is bit 1 of the second word."""
    weight = np.ones((1, 40, 2, 34), np.int8)
    weight[0, 37, 1, 33] = -1
    packed = pack_panels(weight, 16, 48, Unit(32, 16))
    assert packed.shape == (1, 3, 2, 2, 16)
    assert packed[0, 2, 1, 1, 5] == 2
    assert packed.sum() == 2
    packed = pack_panels(weight, 32, 64, Unit(8, 32))
    assert packed.shape == (1, 2, 2, 8, 32)
    assert packed[0, 1, 1, 4, 5] == 2
    assert packed.sum() == 2


@quick
@given(
    unit=st.sampled_from([Unit(32, 16), Unit(8, 32), Unit(8, 64)]),
    panel=st.integers(1, 3),
    groups=st.integers(1, 2),
    outputs=st.integers(1, 70),
    middle=st.sampled_from([(), (3,), (2, 3)]),
    channels=st.integers(1, 70),
)
def test_panels_are_undone(
    unit: Unit, panel: int, groups: int, outputs: int, middle: tuple[int, ...], channels: int
) -> None:
    weight = signs(groups, outputs, *middle, channels).numpy()
    lanes = panel * unit.lanes
    padded = -(-outputs // lanes) * lanes
    packed = pack_panels(weight, lanes, padded, unit)
    assert packed.dtype == unit.dtype
    assert packed.flags.c_contiguous
    assert np.array_equal(unpack_panels(packed, outputs, channels), weight)
    set_bits = np.unpackbits(packed.reshape(-1).view(np.uint8)).sum()
    assert set_bits == (weight < 0).sum(), "what fills words and panels is 0"


def test_weights_in_any_order_of_memory() -> None:
    weight = signs(1, 2, 5, 33)[:, :1].numpy().transpose(0, 2, 1, 3)
    packed = pack_panels(weight, 16, 16, Unit(32, 16))
    assert np.array_equal(unpack_panels(packed, 5, 33), weight)


def test_arrays_joined() -> None:
    parts: list[Array] = [
        np.arange(5, dtype=np.uint32),
        np.arange(64, dtype=np.uint8),
        np.arange(6, dtype=np.int32).reshape(2, 3),
    ]
    joined = join(parts)
    kinds = [(part.shape, part.dtype.type) for part in parts]
    assert joined.size == joined_bytes(*kinds) == 3 * 64
    again = parts_of(joined, *kinds)
    for part, found in zip(parts, again, strict=True):
        assert found.dtype == part.dtype
        assert np.array_equal(found, part)
        assert np.shares_memory(found, joined)
        assert (found.ctypes.data - joined.ctypes.data) % 64 == 0
    assert not joined[20:64].any()


def test_a_run_of_bytes_divides_the_steps_and_fits_a_byte() -> None:
    for steps in range(1, 2000):
        run = _run(steps)
        assert steps % run == 0
        assert 8 * run <= 255
        assert not any(steps % more == 0 for more in range(run + 1, 32)), "the longest"


# All bits differ: 31 bytes at once, 4 of 148 (37 is too many), whole words, sums up to the last that 16 bits hold.
COUNTS = [1, 8, 33, 992, 1184, 4096, 8192, 65504, 65536]


@pytest.mark.parametrize("channels", COUNTS)
@pytest.mark.parametrize("name", ["AVX2", "host"])
def test_no_sum_overflows(channels: int, name: str) -> None:
    x, weight = torch.ones(2, channels, dtype=torch.int8), torch.full((3, channels), -1, dtype=torch.int8)
    weight[1] = 1
    expected = [[-channels, channels, -channels]] * 2
    assert run_kernel(BinaryDense(), [x, weight], constants=(1,), cpu=cpu_of(name)).tolist() == expected
    thresholds = torch.tensor([-channels, channels, 1 - channels], dtype=torch.int32)
    options = {"constants": (1, 2), "output_format": SIGNS, "cpu": cpu_of(name)}
    found = run_kernel(BinaryDense(True), [x, weight, thresholds], **options)  # type: ignore[arg-type]
    assert found.tolist() == [[1, 1, -1]] * 2


@pytest.mark.parametrize("channels", [8, 32, 64, 96])
@pytest.mark.parametrize("width", [1, 3, 7, 8])
def test_no_sum_of_a_row_of_a_window_overflows(channels: int, width: int) -> None:
    """Rows of a window are counted at once as long as they fit: 4 x 7 bytes, but not 4 x 8."""
    x = torch.ones(1, channels, 2, width, dtype=torch.int8)
    weight = torch.full((2, channels, 2, width), -1, dtype=torch.int8)
    result = run_kernel(
        BinaryConv2d(), [x, weight], constants=(1,), layouts=[Layout(True)], output=Layout(True), cpu=cpu_of("AVX2")
    )
    assert result.flatten().tolist() == [-2 * width * channels] * 2


@pytest.mark.parametrize("cpu", [POPCOUNT, AVX512, AVX2, NEON], ids=["popcount", "AVX-512", "AVX2", "Neon"])
@pytest.mark.parametrize("rows", [1, 7, 56])
@pytest.mark.parametrize("outputs", [1, 33, 512])
def test_tiles_fit_the_registers_and_words(cpu: Cpu, rows: int, outputs: int) -> None:
    unit = Unit.of(cpu)
    for height, vectors in tiles(rows, outputs, cpu, whole_words=True):
        assert vectors * unit.lanes % 32 == 0
        assert fits(height, vectors, cpu)
        assert 1 <= height <= rows
    assert (1, 1) in tiles(rows, outputs, cpu, whole_words=False)
