from __future__ import annotations

import torch

from netopt.numerics import FLOAT32


def test_float64_is_rounded() -> None:
    assert torch.equal(FLOAT32.encode(torch.tensor([0.1], dtype=torch.float64)), torch.tensor([0.1]))


def test_what_is_float32_is_not_copied() -> None:
    tensor = torch.tensor([1.0])
    assert FLOAT32.encode(tensor) is tensor
    assert FLOAT32.to_array(tensor).ctypes.data == tensor.data_ptr()
