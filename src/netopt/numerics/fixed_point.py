"""Fixed point: whole numbers of 8 or 16 bits that stand for numbers a power of two smaller or larger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from netopt.errors import InvalidArgument
from netopt.numerics.format import Array, ElementFormat, Part, Shape
from netopt.numerics.operations import TORCH, Operations, to_integer

# All that a format of these stands for are normal float32 numbers, and denormals round to 0.
_FRACTIONS = range(-112, 126)


@dataclass(frozen=True)
class FixedPoint(ElementFormat):
    """Signed fixed point: value = code x 2^-fraction_bits, codes in two's complement.

    A number x becomes the code floor(x 2^fraction_bits + 1/2): to nearest, halves upward. Beyond the codes it becomes
    the nearest of them, infinities too. NaN becomes 0: whole numbers have none, and no machine may differ.

    A tensor and a kernel have the codes.

    Attributes:
        bits: of a code, 8 or 16.
        fraction_bits: from -112 to 125; with a row of them, one for each element along the first axis, which of weights
            is that of the output channels.
    """

    bits: int
    fraction_bits: int | tuple[int, ...]
    name: ClassVar[str] = "fixed"
    is_real: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise InvalidArgument("bits of a fixed-point format", expected="8 or 16", found=self.bits)
        for fraction in self._fractions:
            if type(fraction) is not int or fraction not in _FRACTIONS:
                expected = f"integers from {_FRACTIONS.start} to {_FRACTIONS.stop - 1}"
                raise InvalidArgument("fraction bits of a fixed-point format", expected=expected, found=fraction)

    @property
    def _fractions(self) -> tuple[int, ...]:
        return self.fraction_bits if isinstance(self.fraction_bits, tuple) else (self.fraction_bits,)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        if isinstance(self.fraction_bits, tuple) and shape[:1] != (len(self.fraction_bits),):
            raise InvalidArgument(
                "shape of fixed-point numbers", expected=f"{len(self.fraction_bits)} along the first axis", found=shape
            )
        return super().parts(shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int8 if self.bits == 8 else np.int16)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return torch.int8 if self.bits == 8 else torch.int16

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        # In float64 a product with a power of two is exact for all that float32 has.
        scaled = numbers.double() * self._scale(1, numbers)
        return TORCH.cast(to_integer(scaled, self.bits, TORCH), self.dtype)

    def decode(self, tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return tensor.to(dtype) * self._scale(-1, tensor).to(dtype)

    def _scale(self, power: int, tensor: torch.Tensor) -> torch.Tensor:
        """2^(power x fraction_bits), along the first axis of the tensor where there are several."""
        self.parts(tuple(tensor.shape))
        scale = [2.0 ** (power * fraction) for fraction in self._fractions]
        axes = (-1, *[1] * (tensor.dim() - 1)) if isinstance(self.fraction_bits, tuple) else ()
        return torch.tensor(scale, dtype=torch.float64, device=tensor.device).reshape(axes)

    def sample(self, shape: Shape) -> Array:
        return np.full(shape, 1 << (self.bits - 3), self.dtype)

    def to_stored(self, number: Any, on: Operations) -> Any:
        return on.cast(to_integer(number * self._factor(1), self.bits, on), self.dtype)

    def to_number(self, stored: Any, on: Operations) -> Any:
        return on.cast(stored, np.float32) * self._factor(-1)

    def _factor(self, power: int) -> float:
        assert isinstance(self.fraction_bits, int), "kernels read codes of several scales by channel"
        return float(2.0 ** (power * self.fraction_bits))
