"""Batch normalization with the running statistics (Ioffe and Szegedy, 1502.03167). Folded away before the kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.ops.op import Op, TensorType, expect_epsilon, expect_inputs


@dataclass(frozen=True)
class BatchNorm(Op):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias, for each channel (axis 1 of x).

    Inputs: x (batch, channels, ...), weight, bias, mean, variance (channels,).
    """

    epsilon: float
    name: ClassVar[str] = "batch_norm"

    def __post_init__(self) -> None:
        expect_epsilon(self, self.epsilon)

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 5)
        x = inputs[0].shape
        if len(x) < 2 or any(type_.shape != (x[1],) for type_ in inputs[1:]):
            raise InvalidArgument(
                "batch_norm",
                expected="x (batch, channels, ...) and four vectors (channels,)",
                found=[str(t) for t in inputs],
            )
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        scale, shift = self.scale_and_shift(*inputs[1:])
        along_channels = (-1,) + (1,) * (x.dim() - 2)
        return x * scale.reshape(along_channels) + shift.reshape(along_channels)

    def scale_and_shift(
        self, weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale, shift) with y = x * scale + shift, computed in float64 and rounded once to the type of `weight`."""
        scale = weight.double() / torch.sqrt(variance.double() + self.epsilon)
        shift = bias.double() - mean.double() * scale
        return scale.to(weight.dtype), shift.to(weight.dtype)

    def constant_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (1, 2, 3, 4)

    def with_height(self, inputs: Sequence[TensorType]) -> Op:
        return self

    def is_monotone(self, index: int, constants: Mapping[int, torch.Tensor]) -> bool:
        return index == 0 and constants.keys() >= {1, 2, 3, 4}
