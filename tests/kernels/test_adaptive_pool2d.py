"""Adaptive pooling to any number of windows, smaller and larger than the image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netopt.ops import CHANNELS_LAST, AdaptivePool2d, Layout
from tests.kernels.harness import run_kernel
from tests.kernels.images import assert_matches, places, quick, randn


@quick
@given(
    function=st.sampled_from(["max", "average"]),
    image=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    channels=st.integers(1, 35),
    layout=places,
    output=places,
)
def test_any_size(
    function: str, image: tuple[int, int], size: tuple[int, int], channels: int, layout: Layout, output: Layout
) -> None:
    assert_matches(AdaptivePool2d(function, size), [randn(2, channels, *image) - 5.0], [layout], output)


@pytest.mark.parametrize("function", ["max", "average"])
def test_nan_reaches_the_windows_that_hold_it(function: str) -> None:
    x = randn(1, 2, 7, 5)
    x[0, 1, 2, 3] = float("nan")
    op = AdaptivePool2d(function, (3, 2))
    result = run_kernel(op, [x], layouts=[CHANNELS_LAST], output=CHANNELS_LAST)
    assert torch.equal(result.isnan(), op.reference(x).isnan())
