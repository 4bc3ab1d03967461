"""Convert: the same real numbers in another number format, which the type of the output says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.numerics import FLOATS
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs


@dataclass(frozen=True)
class Convert(Op):
    """y = x, each number rounded once to the format of y: from floats to codes, back, and between codes."""

    name: ClassVar[str] = "convert"
    layouts = Layouts.ANY
    formats = FLOATS
    takes_codes = True
    elementwise = True
    rearranges = True

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0]

    def is_identity(self, inputs: Sequence[TensorType]) -> bool:
        return True

    def is_monotone(self, index: int, constants: Mapping[int, torch.Tensor]) -> bool:
        return True

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return ()

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...]:
        return (axis,)
