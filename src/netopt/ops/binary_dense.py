"""The dense layer with weights of one bit, and inputs of one bit or of floating numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.binary_epilogue import BinaryEpilogueOp
from netopt.ops.op import TensorType
from netopt.ops.pointwise import Pointwise


@dataclass(frozen=True)
class BinaryDense(BinaryEpilogueOp):
    """y = activation(scale (x W^T) + bias + residual); with `has_threshold` y = +1 where x W^T >= t, else -1.

    Inputs, in order: x (..., in) and W (out, in), of +1 and -1; then t (out,), whole numbers; or scale (out,),
    bias (out,), residual (..., out), each if any. x is of +1 and -1, or without a threshold of floating numbers.
    """

    has_threshold: bool = False
    has_scale: bool = False
    has_bias: bool = False
    has_residual: bool = False
    activation: Pointwise | None = None
    name: ClassVar[str] = "binary_dense"
    formats = FLOATS

    def __post_init__(self) -> None:
        self.check_epilogue()

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        self.expect_binary(inputs)
        x, weight = inputs[0].shape, inputs[1].shape
        if len(weight) != 2 or not x or x[-1] != weight[1]:
            raise InvalidArgument(
                "binary_dense", expected="x (..., in) and weight (out, in)", found=f"{x} and {weight}"
            )
        output = (*x[:-1], weight[0])
        self.expect_binary_epilogue(inputs, weight[0], output)
        return TensorType(output)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.apply_binary_epilogue(inputs[0] @ inputs[1].T, inputs, (-1,))

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        return inputs[0].elements * inputs[1].shape[0]
