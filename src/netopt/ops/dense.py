"""The dense (fully connected) layer with its fused end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.ops.epilogue import Epilogue
from netopt.ops.op import TensorType, expect_inputs
from netopt.ops.pointwise import Pointwise


@dataclass(frozen=True)
class Dense(Epilogue):
    """y = activation(x W^T + bias + residual).

    Inputs, in order: x (..., in), W (out, in), bias (out,) if any, residual (..., out) if any.
    The leading axes of x may be any, or none.
    """

    has_bias: bool = False
    has_residual: bool = False
    activation: Pointwise | None = None
    name: ClassVar[str] = "dense"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 2 + self.has_bias + self.has_residual)
        x, weight = inputs[0].shape, inputs[1].shape
        if len(weight) != 2 or not x or x[-1] != weight[1]:
            raise InvalidArgument("dense", expected="x (..., in) and weight (out, in)", found=f"{x} and {weight}")
        output = (*x[:-1], weight[0])
        self.expect_epilogue(inputs, weight[0], output)
        return TensorType(output)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.apply_epilogue(inputs[0] @ inputs[1].T, inputs, (-1,))

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        return inputs[0].elements * inputs[1].shape[0]

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (self.residual_index,) if self.has_residual else ()
