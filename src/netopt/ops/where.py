"""One of two inputs for each element, by a third, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import BOOL, FLOAT32, WHOLES, NumberFormat
from netopt.ops.op import Layouts, Op, TensorType, broadcast_shape, expect_movable, expect_number, same_shape_operands


@dataclass(frozen=True)
class Where(Op):
    """y is input 1 where input 0, of truth, holds, else input 2; those two have one format, which is that of y."""

    name: ClassVar[str] = "where"
    layouts = Layouts.ANY
    formats = (FLOAT32, *WHOLES)
    takes_codes = True
    flushes_denormals = False
    elementwise = True

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_number(self, inputs, 3)
        if inputs[0].format != BOOL:
            raise InvalidArgument(
                "input format of the condition of where", expected="bool", found=inputs[0].format.name
            )
        format_ = expect_movable(self, inputs[1:], 2)
        return TensorType(broadcast_shape(self, inputs), format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.where(inputs[0], inputs[1], inputs[2])

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ == BOOL if index == 0 else super().reads(index, format_, inputs)

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        output = self.infer(inputs)
        same = same_shape_operands(inputs, output.shape)
        return tuple(index for index in same if inputs[index].format == output.format)
