"""Maximum and average over a window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs
from netopt.ops.spatial import Pair, Sides, Window, sum_of_sides

FUNCTIONS = ("max", "average", "average_of_all", "sum")


@dataclass(frozen=True)
class Pool2d(Op):
    """y = the maximum, the average, or the sum, of x (batch, channels, height, width) over a window.

    Padding never wins a maximum. "average" divides by the number of elements that are not padding, "average_of_all" by
    the number of elements of the window within the padded input, as PyTorch's count_include_pad does; what rounding up
    (`ceil_mode`) adds beyond that is `excess`, and counts for neither.

    Attributes:
        function: one of `FUNCTIONS`.
        excess: rows below and columns to the right of the padded input that the last windows may reach into.
    """

    function: str
    kernel: Pair
    stride: Pair
    padding: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    excess: Pair = (0, 0)
    name: ClassVar[str] = "pool2d"
    layouts = Layouts.IMAGES
    formats = FLOATS
    takes_codes = True

    def __post_init__(self) -> None:
        self.window().check(self.label)
        if self.function not in FUNCTIONS or min(self.excess) < 0:
            raise InvalidArgument("function of pool2d", expected=f"one of {FUNCTIONS}", found=self.function)

    @property
    def label(self) -> str:
        return {"max": "max_pool2d", "sum": "sum_pool2d"}.get(self.function, "avg_pool2d")

    def window(self) -> Window:
        """The window over the input with padding and excess."""
        top, bottom, left, right = self.padding
        sides = (top, bottom + self.excess[0], left, right + self.excess[1])
        return Window(self.kernel, self.stride, sides, self.dilation)

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        height, width = self.window().outputs(inputs[0].shape, self.label)
        return TensorType((*inputs[0].shape[:2], height, width))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        top, bottom, left, right = self.window().padding
        if self.function == "max":
            padded = F.pad(x, (left, right, top, bottom), value=-torch.inf)
            return F.max_pool2d(padded, self.kernel, self.stride, 0, self.dilation)
        total = F.avg_pool2d(F.pad(x, (left, right, top, bottom)), self.kernel, self.stride, divisor_override=1)
        if self.function == "sum":
            return total
        counted = torch.ones_like(x)
        if self.function == "average_of_all":
            inner = self.padding
            counted = F.pad(counted, (inner[2], inner[3], inner[0], inner[1]), value=1.0)
            counted = F.pad(counted, (0, self.excess[1], 0, self.excess[0]))
        else:
            counted = F.pad(counted, (left, right, top, bottom))
        return total / F.avg_pool2d(counted, self.kernel, self.stride, divisor_override=1)

    def with_padding(self, sides: Sides) -> Pool2d | None:
        # An average counts these zeros, since they are elements of the image that PyTorch pools.
        counting = {"average_of_all": "average_of_all", "sum": "sum"}
        if not any(self.padding):
            counting["average"] = "average_of_all"
        if self.function not in counting:
            return None
        padding = sum_of_sides(self.padding, sides)
        return dataclasses.replace(self, function=counting[self.function], padding=padding)
