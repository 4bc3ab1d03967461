"""Pooling of signs: what is left of a maximum over a window where only its sign is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import SIGNS, NumberFormat, SignFormat
from netopt.ops.op import Layouts, Op, TensorType, expect_number
from netopt.ops.spatial import Pair, Sides, Window


@dataclass(frozen=True)
class SignPool2d(Op):
    """y = +1 where any sign of the window is +1, or for channels with d = -1 where all are; else -1.

    Inputs: x (batch, channels, height, width) and d (channels,), of +1 and -1. What a window has beyond the image does
    not count; each holds a part of the image.

    Attributes:
        padding: top, bottom, left, right; also what windows reach further through rounding up.
    """

    kernel: Pair
    stride: Pair
    padding: Sides = (0, 0, 0, 0)
    name: ClassVar[str] = "sign_pool2d"
    layouts = Layouts.IMAGES

    def __post_init__(self) -> None:
        self.window().check(self.name)
        sizes = (self.kernel[0], self.kernel[0], self.kernel[1], self.kernel[1])
        if any(side >= size for side, size in zip(self.padding, sizes, strict=True)):
            raise InvalidArgument("padding of sign_pool2d", expected=f"below {self.kernel}", found=self.padding)

    @property
    def gives_signs(self) -> bool:
        return True

    def window(self) -> Window:
        """The window over the padded input."""
        return Window(self.kernel, self.stride, self.padding, (1, 1))

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_number(self, inputs, 2)
        if not all(isinstance(type_.format, SignFormat) for type_ in inputs):
            found = ", ".join(type_.format.name for type_ in inputs)
            raise InvalidArgument("input formats of sign_pool2d", expected="signs", found=found)
        height, width = self.window().outputs(inputs[0].shape, self.name)
        if inputs[1].shape != inputs[0].shape[1:2]:
            raise InvalidArgument("sign_pool2d", expected="a direction for each channel", found=str(inputs[1]))
        return TensorType((*inputs[0].shape[:2], height, width))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        direction = inputs[1].reshape(-1, 1, 1)
        top, bottom, left, right = self.padding
        # all(x) = not any(not x)
        padded = F.pad(inputs[0] * direction, (left, right, top, bottom), value=-1.0)
        return F.max_pool2d(padded, self.kernel, self.stride) * direction

    def constant_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (1,)

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return isinstance(format_, SignFormat)

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ == SIGNS
