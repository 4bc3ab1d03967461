"""Memory for kernels: aligned to 64 bytes, seen by numpy, torch and Halide alike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from netopt.numerics import ALIGNMENT, FLOAT32, Array, NumberFormat, Shape
from netopt.ops import TensorType


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """`size` zero bytes that start at a multiple of 64."""
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


def aligned_array(shape: Shape, format_: NumberFormat = FLOAT32, strides: Shape | None = None) -> Array:
    """An array of zeros that starts at a multiple of 64 bytes; strides in elements, row-major if None."""
    elements = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if strides else 0
    size = array_bytes((max(elements, math.prod(shape)),), format_)
    return array_at(aligned_bytes(size), 0, shape, format_, strides)


def array_bytes(shape: Shape, format_: NumberFormat) -> int:
    """Bytes of an array as a kernel takes it; of signs, `shape` counts words or bytes."""
    return math.prod(shape) * format_.dtype.itemsize


def array_at(
    memory: NDArray[np.uint8],
    offset: int,
    shape: Shape,
    format_: NumberFormat = FLOAT32,
    strides: Shape | None = None,
) -> Array:
    """The array of this shape at a byte offset of `memory`; strides in elements, row-major if None."""
    if strides is None:
        return memory[offset : offset + array_bytes(shape, format_)].view(format_.dtype).reshape(shape)
    step = array_bytes((1,), format_)
    return np.ndarray(shape, format_.dtype, memory, offset, [step * stride for stride in strides])


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
