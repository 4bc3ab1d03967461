"""Channel shuffle (Zhang et al., 1707.01083): channels of different groups side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs


@dataclass(frozen=True)
class ChannelShuffle(Op):
    """Channel i * groups + j of y (batch, channels, height, width) is channel j * channels / groups + i of x."""

    groups: int
    name: ClassVar[str] = "channel_shuffle"
    layouts = Layouts.ANY
    formats = FLOATS
    takes_codes = True
    keeps_format = True
    flushes_denormals = False

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        shape = inputs[0].shape
        if len(shape) != 4 or self.groups < 1 or shape[1] % self.groups:
            raise InvalidArgument(
                "channel_shuffle",
                expected=f"(batch, channels, height, width) with {self.groups} equal groups",
                found=shape,
            )
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = inputs[0].shape
        grouped = inputs[0].reshape(batch, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(inputs[0].shape)
