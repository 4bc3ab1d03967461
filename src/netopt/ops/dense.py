"""The dense (fully connected) layer with its epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS, CodeFormat, Grouped, NumberFormat
from netopt.ops.epilogue import EpilogueOp, scale_columns, scale_rows
from netopt.ops.on_codes import reads_codes
from netopt.ops.on_groups import reads_beside_groups
from netopt.ops.op import Affine, TensorType, expect_inputs, is_code_of_values
from netopt.ops.pointwise import Pointwise


@dataclass(frozen=True)
class Dense(EpilogueOp):
    """y = activation(x W^T + bias + residual).

    Inputs, in order: x (..., in), W (out, in), bias (out,) if any, residual (..., out) if any.
    The leading axes of x may be any, or none.
    """

    has_bias: bool = False
    has_residual: bool = False
    activation: Pointwise | None = None
    name: ClassVar[str] = "dense"
    formats = FLOATS

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

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        if isinstance(format_ if index == 1 else inputs[1].format, Grouped):
            return reads_beside_groups(self, index, format_)
        on_codes = isinstance(format_, CodeFormat) and reads_codes(self, index, format_, inputs)
        return on_codes or format_ in self.formats

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ in self.formats or is_code_of_values(format_)

    def sums_products(self, inputs: Sequence[TensorType]) -> bool:
        return inputs[1].shape[1] > 1

    def fold_after(
        self, affine: Affine, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[TensorType]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        # The channels of other than rows are not its outputs.
        return scale_rows(affine, weight, bias) if self.is_bare and len(inputs[0].shape) == 2 else None

    def fold_before(
        self, affine: Affine, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[TensorType]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        return scale_columns(affine, weight, bias) if len(inputs[0].shape) == 2 else None

    def permute_channels(
        self, order: torch.Tensor, weight: torch.Tensor, inputs: Sequence[TensorType]
    ) -> torch.Tensor | None:
        return weight[:, order] if len(inputs[0].shape) == 2 else None

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...] | None:
        if axis == len(inputs[0].shape) - 1:
            return None
        return (axis, None, *[None] * self.has_bias, *[axis] * self.has_residual)
