"""Permute: reorder the axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS, WHOLES
from netopt.ops.op import CHANNELS_LAST, ROW_MAJOR, Layout, Op, TensorType, expect_movable
from netopt.ops.strides import Strides

# Of an image that lies channels last, a view of its memory.
_CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class Permute(Op):
    """Axis i of y is axis `axes[i]` of x."""

    axes: tuple[int, ...]
    name: ClassVar[str] = "permute"
    formats = (*FLOATS, *WHOLES)
    takes_codes = True
    keeps_format = True
    flushes_denormals = False
    rearranges = True
    has_strides = True

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        format_ = expect_movable(self, inputs, 1)
        shape = inputs[0].shape
        if sorted(self.axes) != list(range(len(shape))):
            raise InvalidArgument("permute", expected=f"a permutation of {len(shape)} axes", found=self.axes)
        return TensorType(tuple(shape[axis] for axis in self.axes), format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].permute(self.axes).contiguous()

    def is_view(self, inputs: Sequence[TensorType], output: TensorType) -> bool:
        return self.axes == _CHANNELS_LAST and inputs[0].layout == CHANNELS_LAST and output.layout == ROW_MAJOR

    def wanted_layout(self, index: int, inputs: Sequence[TensorType], output: TensorType) -> Layout | None:
        return None if self.axes == _CHANNELS_LAST and inputs[0].layout == CHANNELS_LAST else ROW_MAJOR

    def is_identity(self, inputs: Sequence[TensorType]) -> bool:
        return self.axes == tuple(range(len(self.axes)))

    def strided(self, x: Strides) -> Strides:
        return x.permuted(self.axes)
