"""What ops with weights do at their end: bias, residual, activation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import Shape
from netopt.ops.op import Op, TensorType
from netopt.ops.pointwise import Pointwise


class Epilogue(Op):
    """An op with inputs x, weight, bias if any, residual if any, in this order.

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
