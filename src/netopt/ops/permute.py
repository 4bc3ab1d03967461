"""Permute: reorder the axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.ops.op import CHANNELS_LAST, ROW_MAJOR, Op, TensorType, expect_inputs


@dataclass(frozen=True)
class Permute(Op):
    """Axis i of y is axis `axes[i]` of x."""

    axes: tuple[int, ...]
    name: ClassVar[str] = "permute"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        shape = inputs[0].shape
        if sorted(self.axes) != list(range(len(shape))):
            raise InvalidArgument("permute", expected=f"a permutation of {len(shape)} axes", found=self.axes)
        return TensorType(tuple(shape[axis] for axis in self.axes))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].permute(self.axes).contiguous()

    def is_view(self, inputs: Sequence[TensorType], output: TensorType) -> bool:
        return self.axes == (0, 2, 3, 1) and inputs[0].layout == CHANNELS_LAST and output.layout == ROW_MAJOR
