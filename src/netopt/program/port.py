"""What goes into a program and what comes out of it: shapes, number formats, and the tensors that stand for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics import CodeFormat, NumberFormat, Shape


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or an output of a program.

    Attributes:
        name: as in messages: x, or of several x[0], x['mask'].
        shape: of the tensor.
        format: in which the program has the numbers.
    """

    name: str
    shape: Shape
    format: NumberFormat

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensor of numbers that a call takes or returns: float32, or that of whole numbers."""
        return self.format.tensor_dtype if self.format.is_whole else torch.float32

    @property
    def stored_dtype(self) -> torch.dtype:
        """Of the tensor of what the program has in memory, which it takes, too: of codes that of the codes."""
        return self.format.tensor_dtype

    @property
    def has_codes(self) -> bool:
        """Whether it is stored in codes, which a call takes or returns as numbers, too."""
        return isinstance(self.format, CodeFormat)

    def __str__(self) -> str:
        numbers, stored = (str(dtype).removeprefix("torch.") for dtype in (self.dtype, self.stored_dtype))
        text = f"{self.name} {self.shape}: {numbers}"
        return f"{text}, or codes in {stored}: {self.format}" if self.has_codes else text

    def refuse(self, tensor: torch.Tensor) -> None:
        """Raise what is wrong with a tensor that a call was given.

        Raises:
            InvalidType: it has another dtype.
            InvalidArgument: it is not on the CPU, or has another shape.
        """
        if tensor.device.type != "cpu":
            raise InvalidArgument(self.name, expected="a tensor on the CPU", found=f"one on {tensor.device}")
        if tensor.dtype not in (self.dtype, self.stored_dtype):
            codes = f", or codes in {self.stored_dtype}" if self.dtype != self.stored_dtype else ""
            raise InvalidType(self.name, expected=f"dtype {self.dtype}{codes}", found=tensor.dtype)
        raise InvalidArgument(
            self.name,
            expected=f"shape {self.shape}",
            found=tuple(tensor.shape),
            fix="lower the model again with an example of that shape",
        )

    def store(self, tensor: torch.Tensor, place: torch.Tensor) -> None:
        """Write what a call was given to its place: as it is, or numbers as the codes that stand for them."""
        tensor = tensor.detach() if tensor.requires_grad else tensor
        is_number = self.has_codes and tensor.dtype == self.dtype
        place.copy_(self.format.encode(tensor) if is_number else tensor)

    def result(self, place: torch.Tensor, *, as_codes: bool) -> torch.Tensor:
        """A copy of what is in its place, as numbers, or codes as they are."""
        if self.has_codes and not as_codes:
            return self.format.decode(place).contiguous()
        return place.clone(memory_format=torch.contiguous_format)
