"""The mean over height and width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs


@dataclass(frozen=True)
class SpatialMean(Op):
    """y (batch, channels, 1, 1) = the mean of x (batch, channels, height, width) over height and width."""

    name: ClassVar[str] = "spatial_mean"
    layouts = Layouts.IMAGES
    formats = FLOATS
    takes_codes = True

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        if len(inputs[0].shape) != 4:
            raise InvalidArgument("spatial_mean", expected="(batch, channels, height, width)", found=inputs[0].shape)
        return TensorType((*inputs[0].shape[:2], 1, 1))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].mean((2, 3), keepdim=True)
