"""Elementwise arithmetic of two inputs, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs, same_shape_operands

FUNCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "prelu": lambda x, slope: torch.where(x > 0, x, slope * x),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}


@dataclass(frozen=True)
class Arithmetic(Op):
    """z = x (+, -, *, /) y, or the larger or smaller of both, elementwise; or "prelu": x where x > 0, else y x.

    Source of "prelu": He et al., 1502.01852.

    Attributes:
        function: a key of `FUNCTIONS`.
    """

    function: str
    name: ClassVar[str] = "arithmetic"
    layouts = Layouts.ANY
    formats = FLOATS
    elementwise = True

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise InvalidArgument("arithmetic", expected=f"one of {', '.join(FUNCTIONS)}", found=self.function)

    @property
    def label(self) -> str:
        return self.function

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 2)
        try:
            return TensorType(np.broadcast_shapes(inputs[0].shape, inputs[1].shape))
        except ValueError:
            raise InvalidArgument(
                f"shapes of {self.label}", expected="shapes that broadcast", found=f"{inputs[0]} and {inputs[1]}"
            ) from None

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[self.function](inputs[0], inputs[1])

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return same_shape_operands(inputs, self.infer(inputs).shape)

    def is_monotone(self, index: int, constants: Mapping[int, torch.Tensor]) -> bool:
        number = constants.get(1 - index)
        if number is None:
            return False
        if self.function == "prelu":
            return index == 0 and bool((number >= 0).all())
        if self.function == "div":
            return index == 0 and bool((number != 0).all())
        return self.function in ("add", "sub", "mul")
