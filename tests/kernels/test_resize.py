"""Resizing against the reference, which tests/ops/test_resize.py holds against PyTorch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netopt.ops import CHANNELS_LAST, Layout, Resize
from netopt.ops.resize import FUNCTIONS
from tests.kernels.harness import run_kernel
from tests.kernels.images import assert_matches, places, quick, randn


def resize(function: str, image: tuple[int, int], size: tuple[int, int]) -> Resize:
    steps = [float(np.float32(n) / np.float32(m)) for n, m in zip(image, size, strict=True)]
    return Resize(function, size, (steps[0], steps[1]))


@quick
@given(
    function=st.sampled_from(FUNCTIONS),
    image=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    size=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    channels=st.integers(1, 35),
    layout=places,
    output=places,
)
def test_any_size(
    function: str, image: tuple[int, int], size: tuple[int, int], channels: int, layout: Layout, output: Layout
) -> None:
    op = resize(function, image, size)
    assert_matches(op, [randn(2, channels, *image)], [layout], output)


@pytest.mark.parametrize("function", ["nearest", "nearest_exact"])
def test_the_pixels_chosen_are_the_references_to_the_last_one(function: str) -> None:
    """Over long lines, where i * step lies on whole numbers but for its rounding."""
    for pixels, outputs in ((3, 1000), (7, 997), (1000, 3), (999, 333), (49, 98), (41, 287)):
        op, x = resize(function, (1, pixels), (1, outputs)), torch.arange(float(pixels)).reshape(1, 1, 1, pixels)
        assert torch.equal(run_kernel(op, [x], layouts=[CHANNELS_LAST], output=CHANNELS_LAST), op.reference(x))
        third = dataclasses.replace(op, step=(1.0, float(np.float32(1 / 3))))
        assert torch.equal(run_kernel(third, [x], layouts=[CHANNELS_LAST], output=CHANNELS_LAST), third.reference(x))


@pytest.mark.parametrize("function", ["nearest", "bilinear"])
def test_nan_reaches_what_is_made_of_it(function: str) -> None:
    x = randn(1, 3, 4, 4)
    x[0, 1, 1, 2] = float("nan")
    op = resize(function, (4, 4), (9, 9))
    result = run_kernel(op, [x], layouts=[CHANNELS_LAST], output=CHANNELS_LAST)
    assert torch.equal(result.isnan(), op.reference(x).isnan())
