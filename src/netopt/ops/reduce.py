"""Sum, mean, product, maximum and minimum over neighbouring axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import BOOL, FLOAT32, WHOLES, NumberFormat
from netopt.ops.op import Op, TensorType, expect_axis, expect_movable


def _product(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True, dtype=x.dtype)
    return x


FUNCTIONS: dict[str, Callable[[torch.Tensor, tuple[int, ...]], torch.Tensor]] = {
    "sum": lambda x, axes: x.sum(axes, keepdim=True, dtype=x.dtype),
    "mean": lambda x, axes: x.mean(axes, keepdim=True),
    "max": lambda x, axes: x.amax(axes, keepdim=True),
    "min": lambda x, axes: x.amin(axes, keepdim=True),
    "prod": _product,
}


@dataclass(frozen=True)
class Reduce(Op):
    """y is x with `count` axes from `axis` on reduced to size 1. NaN wins over every maximum and minimum.

    Attributes:
        function: a key of `FUNCTIONS`.
    """

    function: str
    axis: int
    count: int = 1
    name: ClassVar[str] = "reduce"
    formats = (FLOAT32, *WHOLES)

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise InvalidArgument("function of reduce", expected=f"one of {', '.join(FUNCTIONS)}", found=self.function)

    @property
    def label(self) -> str:
        return self.function

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that are reduced."""
        return tuple(range(self.axis, self.axis + self.count))

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        format_ = expect_movable(self, inputs, 1)
        if format_.is_whole and (self.function == "mean" or (self.function in ("sum", "prod") and format_ == BOOL)):
            raise InvalidArgument(f"input format of {self.label}", expected="float32", found=format_.name)
        shape = inputs[0].shape
        expect_axis(self, self.axis, len(shape))
        if not 1 <= self.count <= len(shape) - self.axis:
            raise InvalidArgument(f"axes of {self.label}", expected=f"1 to {len(shape) - self.axis}", found=self.count)
        return TensorType(tuple(1 if axis in self.axes else size for axis, size in enumerate(shape)), format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[self.function](inputs[0], self.axes)

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ == inputs[0].format
