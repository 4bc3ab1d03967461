"""Conversions between formats: as encode and decode do them on tensors, in any layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.numerics import BFLOAT16, FLOAT32, Affine, CodeFormat, NumberFormat
from netopt.ops import CHANNELS_LAST, ROW_MAJOR, Convert, Layout
from tests.kernels.codes import KINDS, assert_exact, fixed, random_codes
from tests.kernels.harness import run_kernel

HALO = Layout(True, (1, 2, 0, 3))
PITCH = Layout(True, (0, 1, 1, 0), 40)
LAYOUTS = (ROW_MAJOR, CHANNELS_LAST, HALO, PITCH)
AFFINES = (Affine(8, 0.15625, 9, signed=False), Affine(8, 177 * 2.0**-23, -3), Affine(16, 0.001953125, 77))
formats = st.one_of(st.builds(fixed, st.sampled_from([*KINDS]), st.integers(-8, 40)), st.sampled_from(AFFINES))


def around(format_: CodeFormat) -> torch.Tensor:
    """All ties of a format with their neighbours in float32, what is beyond its codes, and what is no number."""
    step, zero = format_.steps[0], format_.zero
    ties = ((np.arange(format_.codes.start - 2, format_.codes.stop + 2) - zero + 0.5) * step).astype(np.float32)
    special = np.array([np.inf, -np.inf, np.nan, 3e38, -3e38, 0.0, -0.0], np.float32)
    values = [ties, np.nextafter(ties, -np.inf), np.nextafter(ties, np.inf), special]
    return torch.from_numpy(np.concatenate(values).astype(np.float32))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(format_=formats)
def test_floats_are_rounded_to_codes(format_: CodeFormat) -> None:
    assert_exact(Convert(), [around(format_)], [FLOAT32], format_)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(format_=formats)
def test_codes_are_the_floats_that_they_stand_for(format_: CodeFormat) -> None:
    codes = torch.arange(format_.codes.start, format_.codes.stop).to(format_.tensor_dtype)
    found = run_kernel(Convert(), [codes], formats=[format_])
    assert torch.equal(found, format_.decode(codes, torch.float64).float())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    read=formats,
    written=formats,
    seed=st.integers(0, 99),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 2),
    channels=st.sampled_from([3, 16, 37]),
)
def test_codes_become_others(
    read: CodeFormat, written: CodeFormat, seed: int, layouts: tuple[Layout, Layout], channels: int
) -> None:
    codes = random_codes((2, channels, 3, 19), read, seed)
    assert_exact(Convert(), [codes], [read], written, layouts=[layouts[0]], output=layouts[1])


@pytest.mark.parametrize("channels", [1, 3, 20])
@pytest.mark.parametrize("written", [fixed("u8", 5), fixed("s8", 4), fixed("s16", 11), AFFINES[0]], ids=str)
@pytest.mark.parametrize("output", LAYOUTS[1:], ids=str)
def test_images_as_a_caller_has_them(channels: int, written: NumberFormat, output: Layout) -> None:
    """Row-major floats, as they are loaded: rows that no vector divides, and halos."""
    x = torch.randn(2, channels, 5, 39, generator=torch.Generator().manual_seed(channels)) * 4
    assert_exact(Convert(), [x], [FLOAT32], written, output=output)


def test_bfloat16() -> None:
    s8 = fixed("s8", 4)
    codes = torch.arange(-128, 128).to(torch.int8)
    found = run_kernel(Convert(), [codes], formats=[s8], output_format=BFLOAT16)
    assert torch.equal(found.float(), codes / 16)
    assert_exact(Convert(), [found], [BFLOAT16], s8)


def test_numbers_of_a_predecessor() -> None:
    q3_4 = fixed("s8", 4)
    x = torch.tensor([100.0, -100.0, 0.03125, -0.03125, -0.09375])
    assert assert_exact(Convert(), [x], [FLOAT32], q3_4).tolist() == [127, -128, 1, 0, -1]
    # 64 x 15 = 960, shifted by 4.
    assert assert_exact(
        Convert(), [torch.tensor([960], dtype=torch.int16)], [fixed("s16", 4)], fixed("s8", 0)
    ).tolist() == [60]
    # Positions above 15 and below 0, and a shift to the left.
    codes = torch.tensor([-128, 127, 1], dtype=torch.int8)
    assert assert_exact(Convert(), [codes], [fixed("s8", 30)], fixed("s16", 35)).tolist() == [-4096, 4064, 32]
    assert assert_exact(Convert(), [codes], [fixed("s8", -4)], fixed("s8", 0)).tolist() == [-128, 127, 16]
