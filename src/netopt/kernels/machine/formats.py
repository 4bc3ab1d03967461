"""What kernels read and write: float32, whatever the values are stored in, and signs in words of 32.

numpy and Halide's Python buffers have no bfloat16: its bits go as unsigned 16-bit integers.
"""

from __future__ import annotations

from typing import Any

import halide as hl
import numpy as np
import torch
from numpy.typing import NDArray

from netopt.numerics import BFLOAT16, FLOAT32, INT32, SIGN_BITS, SIGNS, NumberFormat

# Elements of an operand or a constant: float32, the bits of bfloat16, int32, or words of signs. Signs that are
# constants are int8 where they are given, and bytes where a kernel has packed them.
Array = NDArray[Any]

_DTYPES: dict[NumberFormat, type[np.generic]] = {
    FLOAT32: np.float32,
    BFLOAT16: np.uint16,
    INT32: np.int32,
    SIGNS: np.uint32,
    SIGN_BITS: np.uint8,
}
_TYPES: dict[NumberFormat, hl.Type] = {
    FLOAT32: hl.Float(32),
    BFLOAT16: hl.UInt(16),
    INT32: hl.Int(32),
    SIGNS: hl.UInt(32),
    SIGN_BITS: hl.UInt(8),
}


def dtype_of(format_: NumberFormat) -> type[np.generic]:
    """What numpy takes the elements for; of signs, the words or bytes."""
    return _DTYPES[format_]


def format_of(array: Array) -> NumberFormat:
    """The inverse of `dtype_of`."""
    return next(format_ for format_, kind in _DTYPES.items() if array.dtype == kind)


def to_array(tensor: torch.Tensor) -> Array:
    """The tensor's memory as numpy sees it."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def to_tensor(array: Array) -> torch.Tensor:
    """The inverse of `to_array`."""
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def storage_type(format_: NumberFormat) -> hl.Type:
    """What Halide takes the elements in memory for."""
    return _TYPES[format_]


def stored(value: hl.Expr, format_: NumberFormat) -> hl.Expr:
    """A float32 value as it is written to memory: rounded to nearest, ties to even, as PyTorch rounds.

    By its bits: Halide's own conversion has no instruction on x86, warns of that, and turns some NaN into zeros.
    """
    if format_ != BFLOAT16:
        return value
    bits = hl.reinterpret(hl.UInt(32), value)
    rounded = (bits + hl.u32(0x7FFF) + ((bits >> 16) & hl.u32(1))) >> 16
    # The sum would carry the payload of a NaN into its sign.
    quiet = (bits >> 16) | hl.u32(0x40)
    return hl.cast(hl.UInt(16), hl.select((bits & hl.u32(0x7FFFFFFF)) > hl.u32(0x7F800000), quiet, rounded))


class Source:
    """An input of a pipeline, read in float32; of signs the words, of integers the numbers."""

    def __init__(self, name: str, rank: int, format_: NumberFormat) -> None:
        """Make the parameter `param`."""
        self.format = format_
        self.param = hl.ImageParam(storage_type(format_), rank, name)

    def __getitem__(self, coordinates: Any) -> hl.Expr:
        if self.format == BFLOAT16:
            return hl.reinterpret(hl.Float(32), hl.cast(hl.UInt(32), self.param[coordinates]) << 16)
        return self.param[coordinates]

    def half(self, coordinates: Any) -> hl.Expr:
        """An element of a bfloat16 input as it is, for products of pairs."""
        assert self.format == BFLOAT16
        return hl.reinterpret(hl.BFloat(16), self.param[coordinates])
