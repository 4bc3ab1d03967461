"""Pooling, means, copies and elementwise ops on images, in every mixture of layouts and halos."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from netopt.ops import (
    CHANNELS_LAST,
    ROW_MAJOR,
    Arithmetic,
    Concat,
    Layout,
    Pointwise,
    Pool2d,
    Relayout,
    Slice,
    SpatialMean,
)
from tests.kernels.harness import run_kernel
from tests.kernels.images import A, B, C, D, assert_matches, places, quick, randn


@quick
@given(
    function=st.sampled_from(["max", "average", "average_of_all", "sum"]),
    image=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    channels=st.integers(1, 35),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.booleans(),
    excess=st.booleans(),
    layout=places,
    output=places,
)
def test_any_pooling(
    function: str,
    image: tuple[int, int],
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: bool,
    excess: bool,
    layout: Layout,
    output: Layout,
) -> None:
    half = (kernel[0] // 2, kernel[1] // 2)
    sides = (half[0], half[0], half[1], half[1]) if padding else (0, 0, 0, 0)
    # A window may reach beyond the padding, as long as it begins within the image or the padding before it.
    more = tuple(max(0, min(k - 1 - h, s - 1)) if excess else 0 for k, h, s in zip(kernel, half, stride, strict=True))
    op = Pool2d(function, kernel, stride, sides, (1, 1), more)  # type: ignore[arg-type]
    assert_matches(op, [randn(2, channels, *image)], [layout], output)


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 0)])
def test_dilated_maximum(padding: tuple[int, int, int, int]) -> None:
    op = Pool2d("max", (3, 2), (1, 2), padding, (2, 3))
    assert_matches(op, [randn(1, 9, 8, 9) - 10.0], [A], B)


def test_nan_in_a_window_is_its_maximum() -> None:
    """Wherever in the window it stands: the first, the last or between."""
    x = randn(1, 3, 6, 6)
    x[0, 0, 0, 0] = x[0, 1, 3, 3] = x[0, 2, 2, 5] = float("nan")
    result = run_kernel(Pool2d("max", (2, 2), (2, 2)), [x], layouts=[CHANNELS_LAST], output=CHANNELS_LAST)
    expected = torch.zeros(1, 3, 3, 3, dtype=torch.bool)
    expected[0, 0, 0, 0] = expected[0, 1, 1, 1] = expected[0, 2, 1, 2] = True
    assert torch.equal(result.isnan(), expected)


@pytest.mark.parametrize("channels", [1, 8, 33, 64])
@pytest.mark.parametrize(("source", "output"), [(A, ROW_MAJOR), (A, CHANNELS_LAST), (C, ROW_MAJOR), (D, C)])
def test_spatial_mean(channels: int, source: Layout, output: Layout) -> None:
    assert_matches(SpatialMean(), [randn(2, channels, 7, 5)], [source], output)


@pytest.mark.parametrize("image", [(1, 1), (1, 5), (6, 1)])
def test_images_of_one_pixel_or_line(image: tuple[int, int]) -> None:
    x = randn(2, 18, *image)
    assert_matches(SpatialMean(), [x], [A], B)
    assert_matches(Pool2d("max", (3, 3), (1, 1), (1, 1, 1, 1)), [x], [A], B)
    assert_matches(Pool2d("average", (3, 3), (1, 1), (1, 1, 1, 1)), [x], [A], B)


@quick
@given(shape=st.tuples(*[st.integers(1, 9)] * 4), first=places, second=places, to=st.booleans(), back=st.booleans())
def test_relayout(shape: tuple[int, ...], first: Layout, second: Layout, to: bool, back: bool) -> None:
    x = randn(*shape)
    source, target = first if to else ROW_MAJOR, second if back else ROW_MAJOR
    assert torch.equal(run_kernel(Relayout(), [x], layouts=[source], output=target), x)


@pytest.mark.parametrize("shape", [(2, 3, 4, 16), (1, 4, 3, 37), (2, 2, 5, 7), (1, 1, 2, 33)])
@pytest.mark.parametrize("target", [A, CHANNELS_LAST, D])
def test_relayout_of_few_channels(shape: tuple[int, ...], target: Layout) -> None:
    x = randn(*shape)
    assert torch.equal(run_kernel(Relayout(), [x], layouts=[ROW_MAJOR], output=target), x)


@pytest.mark.parametrize(("source", "target"), [(A, B), (CHANNELS_LAST, CHANNELS_LAST), (ROW_MAJOR, A), (C, C), (A, D)])
@pytest.mark.parametrize("function", ["relu", "sigmoid"])
def test_pointwise(source: Layout, target: Layout, function: str) -> None:
    """sigmoid(0) is not 0: the halo must not be computed with the image."""
    assert_matches(Pointwise(function), [randn(2, 11, 5, 6)], [source], target)


@pytest.mark.parametrize("second", [(2, 11, 5, 6), (11, 1, 1), (2, 11, 1, 1), (1, 1, 5, 1), (6,), ()])
@pytest.mark.parametrize("layouts", [(A, ROW_MAJOR, B), (CHANNELS_LAST, CHANNELS_LAST, B), (C, C, C), (D, C, D)])
def test_arithmetic_is_correctly_rounded(second: tuple[int, ...], layouts: tuple[Layout, Layout, Layout]) -> None:
    x, y = randn(2, 11, 5, 6), randn(*second, seed=1)
    at = layouts[1] if len(second) == 4 else ROW_MAJOR
    for function, expected in (("add", x + y), ("div", x / y), ("prelu", torch.where(x > 0, x, x * y))):
        result = run_kernel(Arithmetic(function), [x, y], layouts=[layouts[0], at], output=layouts[2])
        assert torch.equal(result, expected)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize(("first", "output"), [(A, B), (C, D)])
def test_concat_and_slice(axis: int, first: Layout, output: Layout) -> None:
    shape = [2, 5, 4, 6]
    parts = []
    for number, size in enumerate((3, 1, 9)):
        shape[axis] = size
        parts.append(randn(*shape, seed=number))
    joined = run_kernel(Concat(axis), parts, layouts=[first, CHANNELS_LAST, ROW_MAJOR], output=output)
    assert torch.equal(joined, torch.cat(parts, axis))
    op = Slice(axis, 1, 12, 3)
    assert torch.equal(run_kernel(op, [joined], layouts=[first], output=output), op.reference(joined))
