"""Memory for kernels: aligned to 64 bytes, seen by numpy, torch and Halide alike."""

from __future__ import annotations

import contextlib
import math
import mmap
import sys

import numpy as np
from numpy.typing import NDArray

from netopt.kernels.formats import Array, dtype_of
from netopt.numerics import ALIGNMENT, FLOAT32, NumberFormat, Shape
from netopt.ops import TensorType

_HUGE_PAGE = 2 * 2**20


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """`size` zero bytes that start at a multiple of 64, and on Linux lie in huge pages as far as they fill some.

    A core's prefetchers stop at the end of a page, and each page takes a place in its table of addresses: with pages
    of 4 KiB, 512 x 512 x 3 x 3 weights that come from memory give 106 GMAC/s, with huge ones 131 (AMD Zen 5).
    """
    if size >= _HUGE_PAGE and sys.platform == "linux":
        return _huge_pages(size)
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


if sys.platform == "linux":

    def _huge_pages(size: int) -> NDArray[np.uint8]:
        memory = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        raw = np.frombuffer(memory, np.uint8)
        start = -raw.ctypes.data % _HUGE_PAGE
        # To the page that the end lies in, and no further: the rest of its huge page takes no memory then.
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE, start, size)
        return raw[start : start + size]


def aligned_array(shape: Shape, format_: NumberFormat = FLOAT32, strides: Shape | None = None) -> Array:
    """An array of zeros that starts at a multiple of 64 bytes; strides in elements, row-major if None."""
    elements = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if strides else 0
    size = format_.storage_bytes((max(elements, math.prod(shape)),))
    return array_at(aligned_bytes(size), 0, shape, format_, strides)


def array_at(
    memory: NDArray[np.uint8],
    offset: int,
    shape: Shape,
    format_: NumberFormat = FLOAT32,
    strides: Shape | None = None,
) -> Array:
    """The array of this shape at a byte offset of `memory`; strides in elements, row-major if None."""
    if strides is None:
        return memory[offset : offset + format_.storage_bytes(shape)].view(dtype_of(format_)).reshape(shape)
    step = format_.storage_bytes((1,))
    return np.ndarray(shape, dtype_of(format_), memory, offset, [step * stride for stride in strides])


def row_major_strides(shape: Shape) -> Shape:
    """The strides, in elements, of a row-major array."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides[: len(shape)]))


def strides_of(shape: Shape, type_: TensorType) -> Shape | None:
    """The strides, in elements, of an array of the row-major shape `shape` over a value of this type.

    None where its elements follow each other. With a pitch, the last axes hold the channels of one pixel, and those
    before them count pixels.
    """
    layout = type_.layout
    if not layout.pitch:
        return None
    strides, stride, channels = [1], shape[-1], type_.shape[1]
    for size in reversed(shape[:-1]):
        if stride == channels:
            stride = layout.pitch
        strides.append(stride)
        stride *= size
    return tuple(reversed(strides))
