import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument
from netopt.numerics import (
    FLOAT32,
    SIGN_BITS,
    SIGNS,
    BFloat16,
    FixedPoint,
    Float32,
    Int32,
    NumberFormat,
    SignFormat,
    number_format_from_json,
    pack_signs,
    unpack_signs,
)

FORMATS = (
    Float32(),
    BFloat16(),
    Int32(),
    FixedPoint(8, 7),
    FixedPoint(16, -3),
    FixedPoint(8, 40),
    SignFormat(),
    SignFormat(1),
)
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
    ("shape", "of_values", "of_constants"),
    [
        ((), 4, 4),
        ((1,), 4, 4),
        ((32,), 4, 4),
        ((33,), 8, 8),
        ((5, 32), 20, 20),
        ((5, 33), 40, 24),
        ((2, 3, 3, 33), 2 * 9 * 2 * 4, 76),
        ((7, 1), 28, 4),
        ((0, 3), 0, 0),
        ((3, 0), 0, 0),
    ],
)
def test_bytes_of_signs(shape: tuple[int, ...], of_values: int, of_constants: int) -> None:
    """Values begin a word of 4 bytes with each row; the bits of constants follow each other."""
    assert SIGNS.storage_bytes(shape) == SignFormat().storage_bytes(shape) == of_values
    assert SIGN_BITS.storage_bytes(shape) == of_constants


@given(shape=st.lists(st.integers(1, 70), min_size=2, max_size=3).map(tuple))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_signs_are_packed_along_the_last_axis(shape: tuple[int, ...]) -> None:
    """One word of 4 bytes for each 32 elements of a row, counted one element at a time."""
    words = {(*index[:-1], index[-1] // 32) for index in itertools.product(*map(range, shape))}
    assert SIGNS.storage_bytes(shape) == 4 * len(words)
    assert 0 <= 8 * SIGN_BITS.storage_bytes(shape) - math.prod(shape) < 32


@pytest.mark.parametrize("word", [0, 8, 33, -1])
def test_words_of_signs_have_1_or_32_bits(word: int) -> None:
    with pytest.raises(InvalidArgument, match=f"word of signs: expected 1 or 32 bits, found {word}"):
        SignFormat(word)


def test_the_first_sign_is_the_lowest_bit_and_that_of_minus_one_is_set() -> None:
    signs = np.ones(40, np.int8)
    signs[[0, 9, 31, 32]] = -1
    packed = pack_signs(signs)
    assert packed.tolist() == [0x01, 0x02, 0, 0x80, 0x01, 0, 0, 0]
    assert packed.view("<u4").tolist() == [1 + (1 << 9) + (1 << 31), 1]


@given(
    shape=st.lists(st.integers(1, 70), min_size=1, max_size=3).map(tuple),
    word=st.sampled_from([8, 32, 64]),
    dtype=st.sampled_from([np.int8, np.int32, np.float32]),
    seed=st.integers(0, 9),
    order=st.sampled_from(["C", "F"]),
)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_packing_is_undone(shape: tuple[int, ...], word: int, dtype: type, seed: int, order: str) -> None:
    signs = np.asarray(np.random.default_rng(seed).choice([-1, 1], shape).astype(dtype), order=order)  # type: ignore[call-overload]
    packed = pack_signs(signs, word)
    assert packed.shape == (*shape[:-1], -(-shape[-1] // word) * word // 8)
    assert packed.flags.c_contiguous, "can be seen as words"
    again = unpack_signs(packed, shape[-1])
    assert again.dtype == np.int8
    assert np.array_equal(again, signs)
    assert np.unpackbits(packed).sum() == (signs < 0).sum(), "what fills words is 0"


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_json_round_trip(number_format: NumberFormat) -> None:
    data = json.loads(json.dumps(number_format.to_json()))
    assert number_format_from_json(data) == number_format


def test_json_of_fixed_point() -> None:
    assert FixedPoint(16, -3).to_json() == {"name": "fixed", "bits": 16, "fraction_bits": -3}
    assert FLOAT32.to_json() == {"name": "float32"}
    assert SIGNS.to_json() == {"name": "sign", "word": 32}


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
        {"name": "sign"},
        {"name": "sign", "word": True},
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
