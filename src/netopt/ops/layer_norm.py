"""Layer normalization (Ba et al., 1607.06450)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.op import Op, TensorType, expect_epsilon, expect_inputs


@dataclass(frozen=True)
class LayerNorm(Op):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias, over the last `axes` axes.

    The variance is the biased one.

    Inputs: x, weight and bias of the shape of the last `axes` axes of x.
    """

    axes: int
    epsilon: float
    name: ClassVar[str] = "layer_norm"
    formats = FLOATS

    def __post_init__(self) -> None:
        expect_epsilon(self, self.epsilon)

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 3)
        x = inputs[0].shape
        if not 1 <= self.axes <= len(x):
            raise InvalidArgument("axes of layer_norm", expected=f"1 to {len(x)}", found=self.axes)
        for type_ in inputs[1:]:
            if type_.shape != x[-self.axes :]:
                raise InvalidArgument("weight of layer_norm", expected=str(x[-self.axes :]), found=type_.shape)
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, weight, bias = inputs
        return F.layer_norm(x, x.shape[-self.axes :], weight, bias, self.epsilon)

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...] | None:
        return (axis, None, None) if axis < len(inputs[0].shape) - self.axes else None
