from __future__ import annotations

import torch

from netopt.numerics import INT32


def test_numbers_are_rounded_and_saturated() -> None:
    most = 2.0**31
    numbers = torch.tensor(
        [0.5, -0.5, 1.49, -1.5, most, -most - 1, most - 1.5, torch.nan, torch.inf], dtype=torch.float64
    )
    assert INT32.encode(numbers).tolist() == [1, 0, 1, -1, 2**31 - 1, -(2**31), 2**31 - 1, 0, 2**31 - 1]
