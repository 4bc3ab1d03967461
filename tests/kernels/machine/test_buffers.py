"""Memory for kernels: aligned, zero, of exactly the size that was asked for."""

from __future__ import annotations

import pytest

from netopt.kernels.machine.buffers import aligned_bytes
from netopt.numerics import ALIGNMENT


@pytest.mark.parametrize("size", [0, 1, 100, 2 * 2**20 - 1, 2 * 2**20, 5 * 2**20 + 12])
def test_bytes_are_aligned_and_zero(size: int) -> None:
    memory = aligned_bytes(size)
    assert memory.shape == (size,)
    assert not memory.any()
    memory[...] = 7
    assert memory.all()
    if size:
        assert memory.ctypes.data % ALIGNMENT == 0


def test_two_pieces_do_not_overlap() -> None:
    first, second = aligned_bytes(3 * 2**20), aligned_bytes(3 * 2**20)
    first[...] = 1
    second[...] = 2
    assert first.min() == first.max() == 1
