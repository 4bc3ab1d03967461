"""Pooling of codes: maxima of the codes themselves, and averages as the reference has them, rounded once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.numerics import FLOAT32, Affine, CodeFormat
from netopt.ops import CHANNELS_LAST, AdaptivePool2d, Layout, Op, Pool2d, SpatialMean
from tests.kernels.codes import KINDS, assert_exact, exact, fixed, random_codes
from tests.kernels.harness import run_kernel

HALO = Layout(True, (1, 2, 0, 1))
AFFINE = Affine(8, 0.15625, 9, signed=False)
POOLS: list[Op] = [
    Pool2d("max", (2, 2), (2, 2)),
    Pool2d("max", (3, 3), (2, 2), (1, 1, 1, 1)),
    Pool2d("max", (3, 2), (1, 2), (1, 1, 0, 0), (2, 1)),
    Pool2d("max", (5, 5), (1, 1), (2, 2, 2, 2)),
    Pool2d("average", (2, 2), (2, 2)),
    Pool2d("average", (3, 3), (2, 2), (1, 1, 1, 1)),
    Pool2d("average", (6, 5), (1, 1), (3, 2, 2, 2)),
    Pool2d("average_of_all", (3, 3), (2, 2), (1, 1, 1, 1)),
    Pool2d("sum", (3, 2), (1, 2)),
    AdaptivePool2d("max", (3, 4)),
    AdaptivePool2d("average", (3, 4)),
    AdaptivePool2d("average", (4, 7)),
    SpatialMean(),
]


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(POOLS),
    kind=st.sampled_from([*KINDS]),
    position=st.integers(-8, 40),
    written=st.sampled_from([*KINDS]),
    further=st.integers(-9, 9),
    channels=st.sampled_from([3, 20, 64]),
    seed=st.integers(0, 99),
    extreme=st.booleans(),
)
def test_codes_of_any_positions(
    op: Op, kind: str, position: int, written: str, further: int, channels: int, seed: int, extreme: bool
) -> None:
    codes = random_codes((2, channels, 7, 9), fixed(kind, position), seed, extreme=extreme)
    output = CHANNELS_LAST if isinstance(op, SpatialMean) else HALO
    assert_exact(
        op, [codes], [fixed(kind, position)], fixed(written, position + further), layouts=[HALO], output=output
    )


@pytest.mark.parametrize("op", POOLS, ids=str)
def test_codes_of_one_format(op: Op) -> None:
    for format_ in (fixed("u8", 5), fixed("s8", 3), AFFINE):
        for extreme in (False, True):
            codes = random_codes((1, 19, 7, 9), format_, 1, extreme=extreme)
            assert_exact(op, [codes], [format_], format_, layouts=[CHANNELS_LAST], output=CHANNELS_LAST)


@pytest.mark.parametrize("op", POOLS, ids=str)
def test_affine_codes(op: Op) -> None:
    for read, written in (
        (AFFINE, Affine(8, 0.21875, -5)),
        (Affine(16, 0.00390625, 300), AFFINE),
        (fixed("s8", 2), AFFINE),
    ):
        assert_exact(op, [random_codes((1, 12, 7, 9), read, 2)], [read], written, layouts=[HALO], output=CHANNELS_LAST)


def test_halves_of_an_average_go_up() -> None:
    codes = torch.tensor([1, 2, -1, -2, 127, 127, -128, -128]).to(torch.int8).reshape(4, 1, 1, 2)
    s8 = fixed("s8", 0)
    found = assert_exact(SpatialMean(), [codes], [s8], s8, layouts=[CHANNELS_LAST])
    assert found.flatten().tolist() == [2, -1, 127, -128]


def test_a_sum_of_many_codes_does_not_overflow() -> None:
    """600 x 600 times the largest code of 16 bits is more than 32 bits hold."""
    s16 = fixed("s16", 0)
    codes = torch.full((1, 1, 600, 600), 32767, dtype=torch.int16)
    assert assert_exact(SpatialMean(), [codes], [s16], s16, layouts=[CHANNELS_LAST]).flatten().tolist() == [32767]


@pytest.mark.parametrize("op", POOLS, ids=str)
def test_the_floats_of_codes(op: Op) -> None:
    formats: list[CodeFormat] = [fixed("s8", 4), AFFINE]
    for format_ in formats:
        codes = random_codes((1, 12, 7, 9), format_, 3)
        found = run_kernel(op, [codes], formats=[format_], layouts=[HALO], output=CHANNELS_LAST)
        torch.testing.assert_close(found, exact(op, [codes], [format_], FLOAT32), rtol=1e-6, atol=1e-6)
