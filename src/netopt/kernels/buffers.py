"""Memory for kernels: aligned to 64 bytes, seen by numpy, torch and Halide alike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from netopt.numerics import ALIGNMENT, Shape


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """`size` zero bytes that start at a multiple of 64."""
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def aligned_floats(shape: Shape) -> NDArray[np.float32]:
    """A float32 array of zeros that starts at a multiple of 64 bytes."""
    return floats_at(aligned_bytes(4 * math.prod(shape)), 0, shape)


def floats_at(memory: NDArray[np.uint8], offset: int, shape: Shape) -> NDArray[np.float32]:
    """The float32 array of this shape at a byte offset of `memory`."""
    return memory[offset : offset + 4 * math.prod(shape)].view(np.float32).reshape(shape)
