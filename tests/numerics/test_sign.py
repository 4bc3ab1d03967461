"""The bits of signs: how many there are, and where each lies."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument
from netopt.numerics import SIGN_BITS, SIGNS, SignFormat, pack_signs, unpack_signs


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


def test_the_sign_of_zero_and_of_nan() -> None:
    numbers = torch.tensor([0.0, -0.0, 1e-30, -1e-30, torch.nan, -torch.inf])
    assert SIGN_BITS.encode(numbers).tolist() == [1, 1, 1, -1, -1, -1]


def test_bytes_are_rows_of_words_or_one_run_of_bits() -> None:
    signs = torch.ones(2, 33, dtype=torch.int8)
    signs[0, 32] = signs[1, 0] = -1
    assert SIGNS.to_bytes(signs).view("<u4").tolist() == [0, 1, 1, 0]
    assert SIGN_BITS.to_bytes(signs).view("<u4").tolist() == [0, 3, 0]
    for format_ in (SIGNS, SIGN_BITS):
        assert torch.equal(format_.from_bytes(format_.to_bytes(signs), (2, 33)), signs)
