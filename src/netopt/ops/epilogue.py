"""What ops with weights do at their end: bias, residual, activation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import Shape
from netopt.ops.op import Affine, Op, TensorType
from netopt.ops.pointwise import Pointwise


class EpilogueOp(Op):
    """An op with inputs x, weight, bias if any, residual if any, in this order.

    Its kernel packs weight and bias, and reads each element of the residual before it writes the output's, so that the
    output may take over the residual's memory.

    Subclasses have the attributes, so that each keeps its own order of them.
    """

    has_bias: bool
    has_residual: bool
    activation: Pointwise | None

    @property
    def label(self) -> str:
        parts = [self.name]
        if self.has_residual:
            parts.append("add")
        if self.activation is not None:
            parts.append(self.activation.label)
        return " + ".join(parts)

    @property
    def bias_index(self) -> int:
        """Position of the bias among the inputs."""
        return 2

    @property
    def residual_index(self) -> int:
        """Position of the residual among the inputs."""
        return self.bias_index + self.has_bias

    @property
    def is_bare(self) -> bool:
        """Whether nothing comes after the sum and its bias."""
        return not self.has_residual and self.activation is None

    def expect_epilogue(self, inputs: Sequence[TensorType], outputs: int, output: Shape) -> None:
        """Raise unless bias and residual, where there are any, fit `outputs` channels and the output's shape."""
        if self.has_bias and inputs[self.bias_index].shape != (outputs,):
            found = inputs[self.bias_index].shape
            raise InvalidArgument(f"bias of {self.name}", expected=str((outputs,)), found=found)
        if self.has_residual and inputs[self.residual_index].shape != output:
            found = inputs[self.residual_index].shape
            raise InvalidArgument(f"residual of {self.name}", expected=str(output), found=found)

    def apply_epilogue(self, y: torch.Tensor, inputs: Sequence[torch.Tensor], along_channels: Shape) -> torch.Tensor:
        """activation(y + bias + residual), the bias seen as a tensor of shape `along_channels`."""
        if self.has_bias:
            y = y + inputs[self.bias_index].reshape(along_channels)
        if self.has_residual:
            y = y + inputs[self.residual_index]
        return y if self.activation is None else self.activation.reference(y)

    def constant_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return tuple(range(1, self.residual_index))

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (self.residual_index,) if self.has_residual else ()

    def with_activation(self, activation: Op) -> Op | None:
        if not isinstance(activation, Pointwise) or self.activation is not None:
            return None
        return self._replaced(activation=activation)

    def with_other_activation(self, activation: Pointwise) -> Op:
        """The op with this activation in the place of its own."""
        return self._replaced(activation=activation)

    def with_residual(self) -> Op | None:
        return self._replaced(has_residual=True) if self.is_bare else None

    def with_bias(self) -> Op:
        """The op with a bias, if it has none."""
        return self._replaced(has_bias=True)

    def _replaced(self, **attributes: object) -> Op:
        """With other attributes: subclasses have them, so that type checkers do not see them here."""
        return dataclasses.replace(cast(Any, self), **attributes)  # type: ignore[no-any-return]


def scale_rows(affine: Affine, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """scale (W x + b) + shift, where axis 0 of W is that of the outputs, as another weight and bias."""
    return affine.scale.reshape(-1, *[1] * (weight.dim() - 1)) * weight, affine.scale * bias + affine.shift


def scale_columns(affine: Affine, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """W (scale x + shift) + b, where axis 1 of W is that of the inputs, as another weight and bias."""
    by_input = (-1, *[1] * (weight.dim() - 2))
    shifted = (weight * affine.shift.reshape(by_input)).flatten(1).sum(1) + bias
    return weight * affine.scale.reshape(by_input), shifted
