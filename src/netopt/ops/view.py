"""A strided view of a tensor: how an op reads an operand that was cut, permuted or broadcast, without a copy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import Shape


@dataclass(frozen=True)
class View:
    """Element (i, j, ...) is element offset + i * strides[0] + j * strides[1] + ... of x in row-major order.

    Attributes:
        shape: of the view.
        strides: elements of x from one index of an axis to the next; 0 broadcasts.
        offset: element of x where the view begins.
    """

    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides, self.offset, 1)) < 0:
            raise InvalidArgument("view", expected="a stride from 0 for each axis, and an offset from 0", found=self)

    @classmethod
    def whole(cls, shape: Shape) -> View:
        """The tensor as it is."""
        return cls(shape, tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape))))

    def check(self, elements: int) -> None:
        """Raise InvalidArgument unless the view stays within a tensor of so many elements."""
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if not self.shape or min(self.shape) < 1 or last >= elements:
            raise InvalidArgument("view", expected=f"within {elements} elements", found=self)

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The view of x."""
        return torch.as_strided(x.contiguous(), self.shape, self.strides, self.offset)
