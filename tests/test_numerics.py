import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, BFloat16, FixedPoint, Float32, Int32, NumberFormat, Sign, number_format_from_json

FORMATS = (Float32(), BFloat16(), Int32(), FixedPoint(8, 7), FixedPoint(16, -3), FixedPoint(8, 40), Sign())
SHAPES = st.lists(st.integers(0, 70), max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("number_format", "bits"),
    [(Float32(), 32), (BFloat16(), 16), (Int32(), 32), (FixedPoint(8, 3), 8), (FixedPoint(16, 3), 16)],
)
@given(shape=SHAPES)
@settings(derandomize=True, deadline=None, max_examples=30)
def test_bytes_of_a_dense_tensor(number_format: NumberFormat, bits: int, shape: tuple[int, ...]) -> None:
    assert 8 * number_format.storage_bytes(shape) == bits * math.prod(shape)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), 4),
        ((1,), 4),
        ((32,), 4),
        ((33,), 8),
        ((5, 32), 20),
        ((5, 33), 40),
        ((2, 33, 3, 3), 2 * 2 * 9 * 4),
        ((0, 3), 0),
        ((3, 0), 0),
    ],
)
def test_bytes_of_signs(shape: tuple[int, ...], expected: int) -> None:
    assert Sign().storage_bytes(shape) == expected


@given(shape=st.lists(st.integers(1, 70), min_size=2, max_size=3).map(tuple))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_signs_are_packed_along_the_channels(shape: tuple[int, ...]) -> None:
    """One word of 4 bytes for each group of 32 channels, counted one element at a time."""
    words = {(index[0], index[1] // 32, *index[2:]) for index in itertools.product(*map(range, shape))}
    assert Sign().storage_bytes(shape) == 4 * len(words)


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_json_round_trip(number_format: NumberFormat) -> None:
    data = json.loads(json.dumps(number_format.to_json()))
    assert number_format_from_json(data) == number_format


def test_json_of_fixed_point() -> None:
    assert FixedPoint(16, -3).to_json() == {"name": "fixed", "bits": 16, "fraction_bits": -3}
    assert FLOAT32.to_json() == {"name": "float32"}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "float33"},
        {"name": None},
        {"name": ["float32"]},
        {"bits": 8, "fraction_bits": 3},
        {"name": "float32", "bits": 32},
        {"name": "fixed"},
        {"name": "fixed", "bits": 8},
        {"name": "fixed", "bits": 8, "fraction_bits": 3, "signed": 1},
        {"name": "fixed", "bits": 8.0, "fraction_bits": 3},
        {"name": "fixed", "bits": 8, "fraction_bits": True},
        {"name": "fixed", "bits": 8, "fraction_bits": "3"},
    ],
    ids=str,
)
def test_json_of_no_format_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="number format: expected one of float32, bfloat16, int32, fixed, sign"):
        number_format_from_json(data)


def test_reading_json_leaves_it_as_it_is() -> None:
    data = {"name": "fixed", "bits": 8, "fraction_bits": 3}
    number_format_from_json(data)
    assert data == {"name": "fixed", "bits": 8, "fraction_bits": 3}


@pytest.mark.parametrize("bits", [0, 4, 7, 32, -8])
def test_fixed_point_has_8_or_16_bits(bits: int) -> None:
    with pytest.raises(InvalidArgument, match=f"expected 8 or 16, found {bits}"):
        FixedPoint(bits, 0)


def test_formats_are_compared_by_what_they_store() -> None:
    assert len(set(FORMATS)) == len(FORMATS)
    assert FixedPoint(8, 7) == FixedPoint(8, 7)
    assert FixedPoint(8, 7) != FixedPoint(16, 7)
    assert Float32() == FLOAT32
