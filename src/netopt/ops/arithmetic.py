"""Elementwise arithmetic of two inputs, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import BOOL, FLOATS, WHOLES, NumberFormat
from netopt.ops.op import Layouts, Op, TensorType, broadcast_shape, expect_movable, same_shape_operands

FUNCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "prelu": lambda x, slope: torch.where(x > 0, x, slope * x),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "floor_divide": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "truncate_divide": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
}
# Those of floating numbers.
OF_NUMBERS = ("add", "sub", "mul", "div", "prelu", "maximum", "minimum")
# Those of whole numbers, which wrap around, and of truth.
OF_WHOLES = ("add", "sub", "mul", "maximum", "minimum", "floor_divide", "truncate_divide")
OF_TRUTH = ("mul", "maximum", "minimum")


@dataclass(frozen=True)
class Arithmetic(Op):
    """z = x (+, -, *, /) y, or the larger or smaller of both, elementwise; or "prelu": x where x > 0, else y x.

    Of numbers, or of whole numbers of one format without "div" and "prelu", but with quotients that are rounded down or
    towards 0; of truth "mul" is and, "maximum" or.

    Source of "prelu": He et al., 1502.01852.

    Attributes:
        function: a key of `FUNCTIONS`.
    """

    function: str
    name: ClassVar[str] = "arithmetic"
    layouts = Layouts.ANY
    formats = (*FLOATS, *WHOLES)
    takes_codes = True
    elementwise = True

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise InvalidArgument("arithmetic", expected=f"one of {', '.join(FUNCTIONS)}", found=self.function)

    @property
    def label(self) -> str:
        return self.function

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        format_ = expect_movable(self, inputs, 2)
        taken = (OF_TRUTH if format_ == BOOL else OF_WHOLES) if format_.is_whole else OF_NUMBERS
        if self.function not in taken:
            expected = "whole numbers" if self.function in OF_WHOLES else "float32"
            raise InvalidArgument(f"input format of {self.label}", expected=expected, found=format_.name)
        return TensorType(broadcast_shape(self, inputs), format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[self.function](inputs[0], inputs[1])

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return same_shape_operands(inputs, self.infer(inputs).shape)

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        whole = next((type_.format for type_ in inputs if type_.format.is_whole), None)
        return format_ == whole if whole else not format_.is_whole and super().writes(format_, inputs)

    def is_monotone(self, index: int, constants: Mapping[int, torch.Tensor]) -> bool:
        number = constants.get(1 - index)
        if number is None:
            return False
        if self.function == "prelu":
            return index == 0 and bool((number >= 0).all())
        if self.function == "div":
            return index == 0 and bool((number != 0).all())
        return self.function in ("add", "sub", "mul")
