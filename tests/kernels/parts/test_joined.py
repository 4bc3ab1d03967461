"""Several arrays in one constant."""

from __future__ import annotations

import numpy as np

from netopt.kernels.machine.formats import Array
from netopt.kernels.parts.joined import join, joined_bytes, parts_of


def test_arrays_joined() -> None:
    parts: list[Array] = [
        np.arange(5, dtype=np.uint32),
        np.arange(64, dtype=np.uint8),
        np.arange(6, dtype=np.int32).reshape(2, 3),
    ]
    joined = join(parts)
    kinds = [(part.shape, part.dtype) for part in parts]
    assert joined.size == joined_bytes(*kinds) == 3 * 64
    again = parts_of(joined, *kinds)
    for part, found in zip(parts, again, strict=True):
        assert found.dtype == part.dtype
        assert np.array_equal(found, part)
        assert np.shares_memory(found, joined)
        assert (found.ctypes.data - joined.ctypes.data) % 64 == 0
    assert not joined[20:64].any()
