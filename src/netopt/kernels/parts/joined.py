"""Several arrays in one packed constant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from netopt.kernels.machine.formats import Array
from netopt.numerics import align_up


def join(parts: Sequence[Array]) -> Array:
    """Arrays one after the other as bytes, each at a multiple of 64; `parts_of` gives them back."""
    joined = []
    for part in parts:
        data = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        joined.append(np.pad(data, (0, align_up(data.size) - data.size)))
    return np.concatenate(joined)


def joined_bytes(*parts: tuple[tuple[int, ...], np.dtype[Any]]) -> int:
    """Bytes of `join` of arrays of these shapes and types."""
    return sum(align_up(math.prod(shape) * dtype.itemsize) for shape, dtype in parts)


def parts_of(joined: Array, *parts: tuple[tuple[int, ...], np.dtype[Any]]) -> list[Array]:
    """The arrays that were joined, as views."""
    result, start = [], 0
    for shape, dtype in parts:
        size = math.prod(shape) * dtype.itemsize
        result.append(joined[start : start + size].view(dtype).reshape(shape))
        start += align_up(size)
    return result
