"""Codes with a scale for each group of inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument
from netopt.numerics import BFLOAT16, FixedPoint, Grouped, Part, number_format_from_json

quick = settings(max_examples=60, derandomize=True, deadline=None)
BITS = pytest.mark.parametrize("bits", [4, 8])


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_parts_are_codes_and_scales() -> None:
    format_ = Grouped(4, 64)
    assert format_.parts((3, 130)) == (Part("codes", (3, 130), FixedPoint(4, 0)), Part("scales", (3, 3), BFLOAT16))
    assert format_.storage_bytes((3, 130)) == 256 + 2 * 9
    assert Grouped(8, 64).storage_bytes((4096, 4096)) == 2**24 + 2 * 4096 * 64
    assert not format_.is_of_values
    assert format_.is_of_constants


def test_numbers_by_hand() -> None:
    """The largest of the first group is -8 scales of 0.5; the second has only multiples of 7 and 1 scales of 2."""
    first = [-4.0, 3.5, 0.5, 0.3, 0.2, 0.0, -0.25, -0.24]
    second = [14.0, -14.0, 2.0]
    format_ = Grouped(4, 8)
    codes, scales = format_.split(torch.tensor([first + second]))
    assert scales.tolist() == [[0.5, 2.0]]
    assert codes.tolist() == [[-8, 7, 1, 1, 0, 0, 0, 0, 7, -7, 1]]
    assert format_.encode(torch.tensor([first + second])).tolist() == [
        [-4.0, 3.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 14.0, -14.0, 2.0]
    ]


def test_a_scale_may_be_negative() -> None:
    """So that the largest number, whatever its sign, has the code that is farthest from 0."""
    codes, scales = Grouped(4, 8).split(torch.tensor([8.0, -7.0, 1.0]))
    assert (codes.tolist(), scales.tolist()) == ([-8, 7, -1], [-1.0])


@BITS
def test_codes_are_the_nearest(bits: int) -> None:
    format_, numbers = Grouped(bits, 16), randn(20, 50)
    codes, scales = format_.split(numbers)
    steps = numbers.double() / scales.double().repeat_interleave(16, -1)[:, :50]
    assert torch.equal(codes, (steps + 0.5).floor().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).to(torch.int8))


@BITS
def test_the_scale_is_the_best_of_several(bits: int) -> None:
    """The error is no larger than with the largest number at either end of the codes."""
    numbers = randn(50, 64)
    error = (Grouped(bits, 64).encode(numbers) - numbers).double().square().sum(1)
    largest = numbers.gather(1, numbers.abs().argmax(1, keepdim=True))
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    better = 0
    for end in (low, high):
        scale = BFLOAT16.encode(largest / end).double()
        plain = (numbers / scale + 0.5).floor().clamp(low, high) * scale
        others = (plain - numbers).square().sum(1)
        assert (error <= others * (1 + 1e-6)).all()
        better += int((error < others * (1 - 1e-6)).sum())
    assert better > 25


@quick
@given(
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([8, 16, 64]),
    rows=st.integers(1, 4),
    columns=st.integers(1, 90),
    exponent=st.integers(-140, 125),
    seed=st.integers(0, 1000),
)
def test_what_is_encoded_stays_as_it_is(
    bits: int, group: int, rows: int, columns: int, exponent: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(rows, columns, generator=generator) * torch.randint(0, 2, (rows, columns))
    numbers = (numbers.double() * 2.0**exponent).float()
    format_ = Grouped(bits, group)
    once = format_.encode(numbers)
    assert torch.equal(format_.encode(once), once)
    data = format_.to_bytes(once)
    assert data.shape == (format_.storage_bytes((rows, columns)),)
    assert torch.equal(format_.from_bytes(data, (rows, columns)), once)


@BITS
def test_every_code_at_both_ends_of_the_scales(bits: int) -> None:
    format_ = Grouped(bits, 256)
    codes = torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)).to(torch.int8)[None]
    for scale in (2.0**-126, -(2.0**-126), 1.0078125, 2.0 ** (128 - bits), -(2.0 ** (128 - bits))):
        numbers = format_.join((codes, torch.tensor([[scale]], dtype=torch.bfloat16)), tuple(codes.shape))
        assert torch.equal(numbers.double(), codes.double() * scale)
        assert torch.equal(format_.encode(numbers), numbers)


def test_numbers_that_no_scale_fits() -> None:
    infinite = torch.tensor([math.inf, -math.inf, math.nan, 1e38, 0.0])
    assert Grouped(8, 8).encode(infinite).tolist() == pytest.approx([2.0**127, -(2.0**127), 0.0, 1e38, 0.0], rel=0.01)
    assert Grouped(4, 8).encode(infinite).isfinite().all()
    assert Grouped(4, 8).encode(torch.tensor([1e-45, -1e-44])).tolist() == [0.0, 0.0]
    assert Grouped(4, 8).encode(torch.zeros(3, 9)).tolist() == torch.zeros(3, 9).tolist()


def test_signed_zeros_and_float64() -> None:
    numbers = randn(3, 9).double()
    assert torch.equal(Grouped(8, 8).encode(numbers), Grouped(8, 8).encode(numbers.float()))


def test_four_bits_lie_side_by_side() -> None:
    format_ = Grouped(4, 8)
    data = format_.to_bytes(torch.tensor([[-8.0, 7.0, 1.0, 2.0]]))
    assert data[:2].tolist() == [0x78, 0x21]
    assert data[64:].view(np.uint16).tolist() == [0x3F80]


def test_parts_as_bytes_and_back() -> None:
    format_, shape = Grouped(4, 16), (5, 37)
    parts = format_.split(randn(*shape))
    again = format_.parts_of_bytes(format_.joined_bytes(parts, shape), shape)
    assert all(torch.equal(one, other) for one, other in zip(parts, again, strict=True))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
def test_no_numbers(shape: tuple[int, ...]) -> None:
    assert Grouped(4, 8).encode(torch.empty(shape)).shape == shape


def test_plain_data() -> None:
    data = {"name": "grouped", "bits": 4, "group": 64}
    assert Grouped(4, 64).to_json() == data
    assert number_format_from_json(data) == Grouped(4, 64)


@pytest.mark.parametrize(
    ("bits", "group", "message"),
    [
        (5, 64, "bits of a grouped format: expected 4 or 8, found 5"),
        (True, 64, "bits of a grouped format"),
        (4, 12, "group of a grouped format: expected a multiple of 8 up to 256, found 12"),
        (4, 0, "group of a grouped format"),
        (4, 264, "group of a grouped format"),
        (4, 64.0, "group of a grouped format"),
    ],
)
def test_formats_that_there_are_not(bits: int, group: int, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Grouped(bits, group)


def test_a_single_number_has_no_row() -> None:
    with pytest.raises(InvalidArgument, match="grouped numbers: expected one axis or more"):
        Grouped(4, 8).encode(torch.tensor(1.0))
