"""The index of the largest or smallest element along an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, INT64, WHOLES, NumberFormat
from netopt.ops.op import Op, TensorType, expect_axis, expect_movable

FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {"argmax": torch.argmax, "argmin": torch.argmin}


@dataclass(frozen=True)
class ArgReduce(Op):
    """y is where along `axis`, which becomes 1, x is largest or smallest; of equal ones the first, and NaN before all.

    Attributes:
        function: "argmax" or "argmin".
        axis: counted from the front.
    """

    function: str
    axis: int
    name: ClassVar[str] = "arg_reduce"
    formats = (FLOAT32, *WHOLES)

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise InvalidArgument(
                "function of arg_reduce", expected=f"one of {', '.join(FUNCTIONS)}", found=self.function
            )

    @property
    def label(self) -> str:
        return self.function

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_movable(self, inputs, 1)
        shape = inputs[0].shape
        expect_axis(self, self.axis, len(shape))
        return TensorType((*shape[: self.axis], 1, *shape[self.axis + 1 :]), INT64)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        # PyTorch compares no booleans, and of equal elements it names any: the first is where the largest first is.
        x = inputs[0].to(torch.uint8) if inputs[0].dtype == torch.bool else inputs[0]
        if x.is_floating_point():
            best = (x.amax if self.function == "argmax" else x.amin)(self.axis, keepdim=True)
            found = (x == best) | (x.isnan() & best.isnan())
        else:
            found = x == (x.amax if self.function == "argmax" else x.amin)(self.axis, keepdim=True)
        return found.to(torch.uint8).argmax(self.axis, keepdim=True)

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ == INT64
