"""Comparisons of two inputs, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import BOOL, FLOAT32, WHOLES, NumberFormat
from netopt.ops.op import Layouts, Op, TensorType, broadcast_shape, expect_movable

FUNCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}


@dataclass(frozen=True)
class Compare(Op):
    """z is whether x (=, !=, <, <=, >, >=) y, elementwise; of NaN only x != y holds.

    Attributes:
        function: a key of `FUNCTIONS`.
    """

    function: str
    name: ClassVar[str] = "compare"
    layouts = Layouts.ANY
    formats = (FLOAT32, *WHOLES)
    elementwise = True

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise InvalidArgument("comparison", expected=f"one of {', '.join(FUNCTIONS)}", found=self.function)

    @property
    def label(self) -> str:
        return self.function

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_movable(self, inputs, 2)
        return TensorType(broadcast_shape(self, inputs), BOOL)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[self.function](inputs[0], inputs[1])

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ == BOOL
