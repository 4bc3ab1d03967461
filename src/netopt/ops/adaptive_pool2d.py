"""Maximum and average over windows that cut an image into a given number of parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs
from netopt.ops.spatial import Pair

FUNCTIONS = ("max", "average")


@dataclass(frozen=True)
class AdaptivePool2d(Op):
    """y (batch, channels, *size) = the maximum, or the average, of x over windows of about one size.

    Window i of m along an axis of n pixels: floor(i n / m) to ceil((i + 1) n / m), the last excluded. Where m divides
    n it is a `Pool2d`.

    Attributes:
        function: one of `FUNCTIONS`.
        size: height and width of the output.
    """

    function: str
    size: Pair
    name: ClassVar[str] = "adaptive_pool2d"
    layouts = Layouts.IMAGES
    formats = FLOATS
    takes_codes = True

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise InvalidArgument("function of adaptive_pool2d", expected=f"one of {FUNCTIONS}", found=self.function)
        if len(self.size) != 2 or min(self.size) < 1:
            raise InvalidArgument("size of adaptive_pool2d", expected="a height and a width from 1", found=self.size)

    @property
    def label(self) -> str:
        return "adaptive_max_pool2d" if self.function == "max" else "adaptive_avg_pool2d"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        if len(inputs[0].shape) != 4:
            raise InvalidArgument(
                f"input of {self.label}", expected="(batch, channels, height, width)", found=inputs[0].shape
            )
        return TensorType((*inputs[0].shape[:2], *self.size))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        if self.function == "max":
            return F.adaptive_max_pool2d(inputs[0], self.size)
        return F.adaptive_avg_pool2d(inputs[0], self.size)

    def longest(self, axis: int, pixels: int) -> int:
        """Pixels of the longest window along height (0) or width (1)."""
        parts = self.size[axis]
        return max(-(-(i + 1) * pixels // parts) - i * pixels // parts for i in range(parts))
