"""What formats share whose elements are whole numbers of a few bits, codes, that stand for numbers a step apart."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from netopt.errors import InvalidArgument
from netopt.numerics.format import Array, ElementFormat, NumberFormat, Part, Shape
from netopt.numerics.operations import TORCH, Operations, to_integer

_SIGNED = (2, 3, 4, 5, 6, 7, 8, 16, 24, 32)
_UNSIGNED = (2, 3, 4, 5, 6, 7, 8)
_DTYPES: dict[tuple[int, bool], tuple[type[np.integer[Any]], torch.dtype]] = {
    (8, True): (np.int8, torch.int8),
    (8, False): (np.uint8, torch.uint8),
    (16, True): (np.int16, torch.int16),
    (24, True): (np.int32, torch.int32),
    (32, True): (np.int32, torch.int32),
}


@dataclass(frozen=True)
class CodeFormat(ElementFormat):
    """Codes of `bits` bits that stand for multiples of a step.

    A number becomes the code of the nearest multiple, of two as near the upper one. Beyond the codes it becomes the
    nearest of them, infinities too. NaN becomes the code of 0: whole numbers have none, and no machine may differ.

    A tensor and a kernel have the codes, each in whole bytes. Signed codes of fewer than 8 bits are those of constants
    alone, and lie side by side in files, the lowest bits first. Those of 24 and 32 bits are of biases, in the step of
    the sums that they are added to.

    Attributes:
        bits: of a code.
        kind: what the format is called in messages.
    """

    bits: int
    kind: ClassVar[str]
    is_real: ClassVar[bool] = True

    @property
    @abstractmethod
    def is_signed(self) -> bool:
        """Whether there are codes below 0: two's complement."""

    @property
    @abstractmethod
    def steps(self) -> tuple[float, ...]:
        """From one code to the next: one number, or with `is_by_channel` one for each along the first axis."""

    @property
    @abstractmethod
    def is_by_channel(self) -> bool:
        """Whether each element along the first axis, which of weights is that of the output channels, has its step."""

    @property
    def zero(self) -> int:
        """The code of the number 0."""
        return 0

    # --- what codes there are

    @property
    def codes(self) -> range:
        """All of them."""
        half = 1 << (self.bits - 1)
        return range(-half, half) if self.is_signed else range(2 * half)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest number that there is, where all channels have one step."""
        assert not self.is_by_channel, "each channel has its own"
        step = self.steps[0]
        return (self.codes.start - self.zero) * step, (self.codes.stop - 1 - self.zero) * step

    def _check_codes(self) -> None:
        """Raise InvalidArgument unless there are such codes."""
        if type(self.bits) is not int or self.bits not in (_SIGNED if self.is_signed else _UNSIGNED):
            kinds = ", ".join(map(str, _SIGNED if self.is_signed else _UNSIGNED))
            signs = "signed" if self.is_signed else "unsigned"
            raise InvalidArgument(f"bits of {signs} {self.kind} codes", expected=f"one of {kinds}", found=self.bits)

    def check(self, tensor: torch.Tensor, what: str = "codes") -> None:
        """Raise InvalidArgument, of `what`, where an element, which may have room for more, is none of the codes.

        What kernels are proven for holds of the codes alone: of 0 to 127 where a byte could hold 255.
        """
        codes = self.codes
        if self.bits == 8 * self.dtype.itemsize or not tensor.numel():
            return
        least, most = (int(end) for end in torch.aminmax(tensor))
        if least < codes.start or most >= codes.stop:
            expected = f"codes from {codes.start} to {codes.stop - 1}"
            raise InvalidArgument(what, expected=expected, found=least if least < codes.start else most)

    # --- storage

    @property
    def is_packed(self) -> bool:
        """Whether codes lie side by side in files, several in a byte."""
        return self.is_signed and self.bits < 8

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        if self.is_by_channel and shape[:1] != (len(self.steps),):
            raise InvalidArgument(
                f"shape of {self.kind} numbers", expected=f"{len(self.steps)} along the first axis", found=shape
            )
        return super().parts(shape)

    def storage_bytes(self, shape: Shape) -> int:
        bytes_ = super().storage_bytes(shape)
        return -(-bytes_ * self.bits // 8) if self.is_packed else bytes_

    @property
    def is_of_values(self) -> bool:
        return not self.is_packed

    def lies_as(self, other: NumberFormat) -> bool:
        is_plain = isinstance(other, CodeFormat) and not (self.is_packed or other.is_packed)
        return self == other or (is_plain and self.dtype.itemsize == other.dtype.itemsize)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(_DTYPES[max(8, self.bits), self.is_signed][0])

    @property
    def tensor_dtype(self) -> torch.dtype:
        return _DTYPES[max(8, self.bits), self.is_signed][1]

    def to_bytes(self, tensor: torch.Tensor) -> NDArray[np.uint8]:
        data = super().to_bytes(tensor)
        if not self.is_packed:
            return data
        bits = np.unpackbits(data.reshape(-1, 1), axis=1, bitorder="little")[:, : self.bits]
        return np.packbits(bits, bitorder="little")

    def from_bytes(self, data: NDArray[np.uint8], shape: Shape) -> torch.Tensor:
        if not self.is_packed:
            codes = super().from_bytes(data, shape)
            self.check(codes, "constant")
            return codes
        count = super().storage_bytes(shape)
        bits = np.unpackbits(data, count=count * self.bits, bitorder="little").reshape(count, self.bits)
        # The highest bit of a code is its sign, which fills the rest of the byte.
        signs = np.repeat(bits[:, -1:], 8 - self.bits, axis=1)
        whole = np.packbits(np.concatenate([bits, signs], 1), axis=1, bitorder="little")
        return self.to_tensor(whole.reshape(-1).view(np.int8), shape)

    def sample(self, shape: Shape) -> Array:
        return np.full(shape, self.zero + (self.codes.stop - self.zero) // 4, self.dtype)

    # --- numbers

    def encode(self, numbers: torch.Tensor) -> torch.Tensor:
        # In float64, where the quotient is rounded to no half that it is below: see affine.py.
        scaled = numbers.double() / self._along(numbers)
        codes: torch.Tensor = to_integer(scaled, self.codes, self.zero, TORCH)
        return codes.to(self.tensor_dtype)

    def decode(self, tensor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (tensor.to(dtype) - self.zero) * self._along(tensor).to(dtype)

    def _along(self, tensor: torch.Tensor) -> torch.Tensor:
        """The steps, along the first axis of the tensor where there are several."""
        self.parts(tuple(tensor.shape))
        axes = (-1, *[1] * (tensor.dim() - 1)) if self.is_by_channel else ()
        return torch.tensor(self.steps, dtype=torch.float64, device=tensor.device).reshape(axes)

    def to_stored(self, number: Any, on: Operations) -> Any:
        return on.cast(to_integer(self.scaled(number, on), self.codes, self.zero, on), self.dtype)

    def scaled(self, number: Any, on: Operations) -> Any:
        """How many steps a number is, not rounded, where all channels have one step."""
        return on.divide(number, self._step())

    def to_number(self, stored: Any, on: Operations) -> Any:
        code = on.cast(stored, np.float32)
        return (code if self.zero == 0 else code - float(self.zero)) * self._step()

    def _step(self) -> float:
        assert not self.is_by_channel, "kernels read codes of several steps by channel"
        return self.steps[0]
