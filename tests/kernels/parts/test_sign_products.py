"""Packed panels of signs, and sums of counts in bytes, which never overflow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.formats import Array
from netopt.kernels.parts.panels import pack_panels, unpack_panels
from netopt.kernels.parts.sign_products import SignCounts, _run
from netopt.kernels.parts.sign_tile import Unit
from netopt.numerics import SIGNS
from netopt.ops import BinaryConv2d, BinaryDense, Layout
from tests.kernels.binary import cpu_of, signs
from tests.kernels.harness import run_kernel

quick = settings(max_examples=40, derandomize=True, deadline=None)


def pack(weight: Array, panel: int, outputs: int, unit: Unit) -> Array:
    """Signs (groups, out, ..., in), as int8, in panels of units."""
    return pack_panels(SignCounts(unit.lanes, unit).encoded(weight), panel, outputs)


def unpack(packed: Array, outputs: int, channels: int, unit: Unit) -> Array:
    """The inverse of `pack`."""
    product = SignCounts(unit.lanes, unit)
    return product.decoded(unpack_panels(packed, outputs, product.elements(channels)), channels)


def test_where_the_bits_of_a_panel_lie() -> None:
    """Output 37 of 40 in panels of 16: the sixth of the third; its input 33 is bit 1 of the second word."""
    weight = np.ones((1, 40, 2, 34), np.int8)
    weight[0, 37, 1, 33] = -1
    packed = pack(weight, 16, 48, Unit(32, 16))
    assert packed.shape == (1, 3, 2, 2, 16)
    assert packed[0, 2, 1, 1, 5] == 2
    assert packed.sum() == 2
    packed = pack(weight, 32, 64, Unit(8, 32))
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
    packed = pack(weight, lanes, padded, unit)
    assert packed.dtype == unit.dtype
    assert packed.flags.c_contiguous
    assert np.array_equal(unpack(packed, outputs, channels, unit), weight)
    set_bits = np.unpackbits(packed.reshape(-1).view(np.uint8)).sum()
    assert set_bits == (weight < 0).sum(), "what fills words and panels is 0"


def test_weights_in_any_order_of_memory() -> None:
    weight = signs(1, 2, 5, 33)[:, :1].numpy().transpose(0, 2, 1, 3)
    packed = pack(weight, 16, 16, Unit(32, 16))
    assert np.array_equal(unpack(packed, 5, 33, Unit(32, 16)), weight)


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
