"""bfloat16 on tensors; kernels face the same bits in tests/kernels/machine/test_formats.py."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch

from netopt.numerics import BFLOAT16

# All upper halves of a float32, with lower halves around the ties.
_BITS = np.concatenate(
    [(np.arange(2**16, dtype=np.uint32) << 16) | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]
)


def test_rounding_is_that_of_pytorch() -> None:
    numbers = torch.from_numpy(_BITS.view(np.float32))
    expected, found = numbers.bfloat16(), BFLOAT16.encode(numbers)
    assert torch.equal(found.isnan(), expected.isnan())
    some = ~expected.isnan()
    assert torch.equal(found[some].view(torch.int16), expected[some].view(torch.int16))


def test_nan_keeps_its_sign_and_payload() -> None:
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF812345, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32)
    found = BFLOAT16.to_array(BFLOAT16.encode(torch.from_numpy(bits.view(np.float32))))
    assert found.tolist() == [0x7FC0, 0xFFC0, 0x7FC0, 0xFFC1, 0x7FFF, 0xFFFF]


def test_the_nearest_is_chosen_and_of_two_the_even_one() -> None:
    """By exact fractions, of numbers between neighbours of all sizes."""
    generator = np.random.default_rng(0)
    uppers = generator.integers(0, 0x7F7F, 200, dtype=np.uint32)
    for upper in uppers:
        around = [Fraction(float(_number((upper + step) << np.uint32(16)))) for step in (np.uint32(0), np.uint32(1))]
        for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, int(generator.integers(0, 2**16))):
            number = _number((upper << np.uint32(16)) | np.uint32(low))
            found = int(BFLOAT16.to_array(BFLOAT16.encode(torch.tensor([number])))[0])
            below, above = (abs(Fraction(float(number)) - neighbour) for neighbour in around)
            expected = int(upper) + (above < below or (above == below and int(upper) % 2 == 1))
            assert found == expected


def _number(bits: np.uint32) -> np.float32:
    return np.array([bits], np.uint32).view(np.float32)[0]


def test_float64_is_rounded_to_float32_first() -> None:
    numbers = torch.tensor([1 + 2.0**-8 + 2.0**-40, math.pi, -1e300, 1e-300], dtype=torch.float64)
    assert torch.equal(BFLOAT16.encode(numbers), numbers.float().bfloat16())


def test_arrays_are_the_bits() -> None:
    tensor = torch.tensor([[1.0, -2.0]]).bfloat16()
    array = BFLOAT16.to_array(tensor)
    assert array.tolist() == [[0x3F80, 0xC000]]
    array[0, 0] = 0
    assert tensor[0, 0] == 0, "the same memory"
    assert torch.equal(BFLOAT16.to_tensor(array, (2,)), tensor[0])
