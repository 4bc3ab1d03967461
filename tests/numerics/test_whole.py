"""Formats of whole numbers: rounded and saturated where they store real numbers, and as they are where they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from netopt.numerics import BOOL, FLOAT32, INT32, INT64, UINT8, WHOLES, NumberFormat, format_of


@pytest.mark.parametrize(
    ("format_", "smallest", "largest"), [(INT64, -(2**63), 2**63 - 1), (INT32, -(2**31), 2**31 - 1), (UINT8, 0, 255)]
)
def test_numbers_are_rounded_and_saturated(format_: NumberFormat, smallest: int, largest: int) -> None:
    numbers = torch.tensor([0.5, 1.49, 1.5, 2.0**70, -(2.0**70), torch.nan, torch.inf, -torch.inf], dtype=torch.float64)
    expected = [1, 1, 2, largest, smallest, 0, largest, smallest]
    assert format_.encode(numbers).tolist() == expected
    assert format_.encode(numbers.float()).tolist() == expected


def test_what_is_below_0_is_rounded_up_from_a_half() -> None:
    numbers = torch.tensor([-0.5, -1.5, -1.51, 2.0**31 - 1.5, -(2.0**31) - 1], dtype=torch.float64)
    assert INT32.encode(numbers).tolist() == [0, -1, -2, 2**31 - 1, -(2**31)]


def test_truth_is_what_is_not_0() -> None:
    numbers = torch.tensor([0.0, -0.0, 1e-45, torch.nan, -3.0])
    assert BOOL.encode(numbers).tolist() == [False, False, True, True, True]
    assert BOOL.to_array(BOOL.encode(numbers)).dtype == np.uint8


@pytest.mark.parametrize("format_", WHOLES, ids=str)
def test_ops_compute_with_the_tensors_as_they_are(format_: NumberFormat) -> None:
    tensor = torch.tensor([0, 1]).to(format_.tensor_dtype)
    assert format_.numbers(tensor, torch.float64) is tensor
    assert format_.decode(tensor, torch.float64).dtype == torch.float64
    assert format_of(tensor.dtype) == format_


def test_the_format_of_a_type() -> None:
    assert format_of(torch.float32) == FLOAT32
    assert [format_of(dtype) for dtype in (torch.bfloat16, torch.float64, torch.int16, torch.complex64)] == [None] * 4
