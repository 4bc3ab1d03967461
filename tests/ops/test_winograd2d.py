"""Winograd's algorithm against the convolution that it computes, in float64, and its tiles and blocks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt import InvalidArgument
from netopt.ops import Conv2d, Pointwise, TensorType, Winograd2d
from netopt.ops.winograd2d import TRANSFORMS, transform_weight

RELU = Pointwise("relu")


@settings(max_examples=30, derandomize=True, deadline=None)
@given(
    tile=st.sampled_from(list(TRANSFORMS)),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4), st.integers(1, 10), st.integers(1, 10)),
    outputs=st.integers(1, 5),
    padding=st.tuples(*[st.integers(1, 2)] * 4),
)
def test_it_is_the_convolution(tile: int, shape: tuple[int, ...], outputs: int, padding: tuple[int, ...]) -> None:
    x, weight = torch.randn(shape).double(), torch.randn(outputs, shape[1], 3, 3).double()
    direct = Conv2d(padding=padding, has_bias=True, activation=RELU)  # type: ignore[arg-type]
    winograd = Winograd2d(tile, padding, True, False, RELU)  # type: ignore[arg-type]
    bias = torch.randn(outputs).double()
    expected = direct.reference(x, weight, bias)
    # float64 leaves 2^-52 x the largest factors of the transforms, 100 x 36 x 4 x 36, and no more.
    torch.testing.assert_close(winograd.reference(x, transform_weight(weight, tile), bias), expected, rtol=0, atol=1e-9)
    assert winograd.infer([TensorType(tuple(t.shape)) for t in (x, transform_weight(weight, tile), bias)]).shape == (
        tuple(expected.shape)
    )


@pytest.mark.parametrize(
    ("height", "width", "halo"),
    [(8, 8, (1, 1, 1, 1)), (7, 8, (1, 2, 1, 1)), (5, 6, (1, 4, 1, 3))],
)
def test_the_last_tiles_reach_into_more_zeros(height: int, width: int, halo: tuple[int, ...]) -> None:
    assert Winograd2d(4, (1, 1, 1, 1)).halo((1, 3, height, width), (8, 3, 6, 6)) == halo


def test_a_block_is_a_run_of_rows_of_one_image_or_whole_images() -> None:
    op = Winograd2d(4, (1, 1, 1, 1))
    large = op.tiling((2, 64, 224, 224), 64)
    assert (large.rows, large.columns, large.block_images) == (56, 56, 1)
    assert 1 <= large.block_rows < 56
    small = op.tiling((32, 32, 8, 8), 32)
    assert (small.rows, small.columns, small.block_rows) == (2, 2, 2)
    assert 1 < small.block_images <= 32
    types = [TensorType((32, 32, 8, 8)), TensorType((32, 32, 6, 6))]
    assert op.scratch_bytes(types) == 4 * 36 * small.tiles * 64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Winograd2d(3), r"tile of winograd2d: expected one of \[2, 4\], found 3"),
        (
            lambda: Winograd2d(2).infer([TensorType((1, 3, 8, 8)), TensorType((4, 3, 3, 3))]),
            r"weight \(out, in, 4, 4\)",
        ),
        (lambda: Winograd2d(2).infer([TensorType((1, 2, 8, 8)), TensorType((4, 3, 4, 4))]), "winograd2d: expected"),
    ],
)
def test_refused(make: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make()  # type: ignore[operator]
