"""Signs packed and as numbers: every special number, thresholds of both directions, any place in memory."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.kernels.machine.denormals import denormals_flushed
from netopt.kernels.sign import as_image, words_shape
from netopt.numerics import BFLOAT16, FLOAT32, SIGNS, SMALLEST_NORMAL
from netopt.ops import CHANNELS_LAST, ROW_MAJOR, Layout, Sign, TensorType
from netopt.ops.sign import sign_of
from tests.kernels.binary import cpu_of, each_cpu
from tests.kernels.harness import run_kernel
from tests.kernels.images import randn

few = settings(max_examples=8, derandomize=True, deadline=None)
SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, -math.nan, 1e-30, -1e-30, 3e38, -3e38]
OF_SPECIAL = [1, 1, 1, -1, 1, -1, -1, -1, 1, -1, 1, -1]
# The largest denormal and the smallest normal number, and below: denormals are zero, whatever the thread does.
DENORMAL = SMALLEST_NORMAL * (1.0 - 2.0**-23)
SMALL = [DENORMAL, -DENORMAL, 1e-40, -1e-40, 1e-45, -1e-45, SMALLEST_NORMAL, -SMALLEST_NORMAL]
OF_SMALL = [1, 1, 1, 1, 1, 1, 1, -1]


def thresholds(channels: int) -> list[torch.Tensor]:
    """A threshold and a direction for each channel: also always, and never."""
    t, d = randn(channels, seed=7), torch.ones(channels)
    t[1::5], t[2::5], d[::2] = math.inf, -math.inf, -1
    return [t, d]


def run(x: torch.Tensor, vectors: list[torch.Tensor], layout: Layout, output: Layout, **options: Any) -> torch.Tensor:
    options = {"output_format": SIGNS, **options}
    return run_kernel(Sign(bool(vectors)), [x, *vectors], layouts=[layout], output=output, **options)


def assert_right(x: torch.Tensor, vectors: list[torch.Tensor], layout: Layout, output: Layout, **options: Any) -> None:
    """As the reference says, packed and as numbers; the harness looks at halos and at what fills words."""
    expected = Sign(bool(vectors)).reference(x.float(), *vectors)
    assert torch.equal(run(x, vectors, layout, output, **options).float(), expected)
    for format_ in (FLOAT32, BFLOAT16):
        result = run(x, vectors, layout, output, output_format=format_, **options)
        assert torch.equal(result.float(), expected)


@each_cpu
@pytest.mark.parametrize("format_", [SIGNS, FLOAT32])
def test_special_numbers(name: str, format_: Any) -> None:
    x = torch.tensor(SPECIAL * 4).reshape(1, -1, 1, 1)
    result = run(x, [], CHANNELS_LAST, CHANNELS_LAST, output_format=format_, cpu=cpu_of(name))
    assert result.flatten().tolist() == OF_SPECIAL * 4


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("format_", [SIGNS, FLOAT32])
def test_denormals_are_zero(format_: Any, flush: bool) -> None:
    x = torch.tensor(SMALL * 4).reshape(1, -1, 1, 1)
    with denormals_flushed() if flush else nullcontext():
        result = run(x, [], CHANNELS_LAST, CHANNELS_LAST, output_format=format_)
    assert result.flatten().tolist() == OF_SMALL * 4 == sign_of(x).flatten().tolist()


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("at", [SMALLEST_NORMAL, -DENORMAL, DENORMAL, -SMALLEST_NORMAL])
def test_thresholds_at_the_edges_of_what_is_zero(at: float, flush: bool) -> None:
    """As a pass finds them: the first number, of those around zero, that has the sign of all above."""
    direction = 1.0 if at in (SMALLEST_NORMAL, -DENORMAL) else -1.0
    x = torch.tensor([SMALLEST_NORMAL, -SMALLEST_NORMAL, *SMALL, 0.0, -0.0] * 4).reshape(1, -1)
    vectors = [torch.full((x.shape[1],), at), torch.full((x.shape[1],), direction)]
    with denormals_flushed() if flush else nullcontext():
        result = run(x, vectors, ROW_MAJOR, ROW_MAJOR)
    expected = Sign(True).evaluate(x, *vectors)
    assert torch.equal(result.float(), expected)
    zero_is_plus = abs(at) == DENORMAL
    assert (expected[x.abs() < SMALLEST_NORMAL] == (1.0 if zero_is_plus else -1.0)).all()


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("at", [0.0, -0.0, 2.5, math.inf, -math.inf])
def test_special_numbers_and_thresholds(direction: float, at: float) -> None:
    """NaN has the sign -1 whatever the direction; a number that is the threshold has +1."""
    x = torch.tensor([*SPECIAL, 2.5, 2.4999998, 2.5000002] * 3).reshape(1, -1)
    channels = x.shape[1]
    vectors = [torch.full((channels,), at), torch.full((channels,), direction)]
    expected = [1 if direction * value >= direction * at else -1 for value in x[0].tolist()]
    assert run(x, vectors, ROW_MAJOR, ROW_MAJOR).tolist() == [expected]


@few
@given(
    batch=st.integers(1, 2),
    channels=st.sampled_from([1, 3, 31, 32, 33, 70]),
    image=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    halos=st.tuples(*[st.tuples(*[st.integers(0, 2)] * 4)] * 2),
    has_threshold=st.booleans(),
    kind=st.sampled_from(["float32", "bfloat16", "among others", "row-major"]),
)
def test_any_image(
    batch: int,
    channels: int,
    image: tuple[int, int],
    halos: tuple[tuple[int, int, int, int], tuple[int, int, int, int]],
    has_threshold: bool,
    kind: str,
) -> None:
    x = randn(batch, channels, *image)
    layout = ROW_MAJOR if kind == "row-major" else Layout(True, halos[0], 81 if kind == "among others" else 0)
    vectors = thresholds(channels) if has_threshold else []
    assert_right(x.bfloat16() if kind == "bfloat16" else x, vectors, layout, Layout(True, halos[1]))


@each_cpu
@pytest.mark.parametrize("channels", [33, 64])
def test_images_on_each_cpu(name: str, channels: int) -> None:
    x = randn(2, channels, 3, 5)
    for vectors in ([], thresholds(channels)):
        assert_right(x, vectors, Layout(True, (0, 0, 1, 0)), Layout(True, (1, 0, 2, 1)), cpu=cpu_of(name))


@pytest.mark.parametrize("shape", [(7,), (1, 40), (5, 33), (2, 3, 32)])
def test_rows(shape: tuple[int, ...]) -> None:
    assert_right(randn(*shape), [], ROW_MAJOR, ROW_MAJOR)
    if len(shape) == 2:
        assert_right(randn(*shape), thresholds(shape[1]), ROW_MAJOR, ROW_MAJOR)


def test_one_pixel_in_row_major_order() -> None:
    x = randn(2, 40, 1, 1)
    assert_right(x, thresholds(40), ROW_MAJOR, CHANNELS_LAST)
    assert_right(x, thresholds(40), ROW_MAJOR, Layout(True, (1, 1, 0, 2)))


def test_two_threads() -> None:
    x = randn(1, 96, 64, 40)
    assert torch.equal(
        run(x, [], CHANNELS_LAST, Layout(True, (1, 1, 1, 1)), threads=2), Sign().reference(x).to(torch.int8)
    )


@pytest.mark.parametrize(
    ("type_", "image", "words"),
    [
        (TensorType((7,)), (1, 7, 1, 1), (1, 1, 1, 1)),
        (TensorType((5, 33)), (1, 33, 1, 5), (1, 1, 5, 2)),
        (TensorType((2, 3, 64)), (1, 64, 1, 6), (1, 1, 6, 2)),
        (TensorType((2, 65, 3, 4), layout=Layout(True, (1, 0, 2, 0))), (2, 65, 3, 4), (2, 4, 6, 3)),
    ],
)
def test_rows_are_an_image_one_pixel_high(type_: TensorType, image: tuple[int, ...], words: tuple[int, ...]) -> None:
    assert as_image(type_).shape == image
    assert words_shape(type_) == words
