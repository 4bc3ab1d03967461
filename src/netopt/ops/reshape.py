"""Reshape: the same elements in the same order, in another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS, WHOLES, Shape
from netopt.ops.op import ROW_MAJOR, Op, TensorType, expect_movable
from netopt.ops.strides import Strides


@dataclass(frozen=True)
class Reshape(Op):
    """y has x's elements in row-major order, and the shape `shape`."""

    shape: Shape
    name: ClassVar[str] = "reshape"
    formats = (*FLOATS, *WHOLES)
    takes_codes = True
    keeps_format = True
    flushes_denormals = False
    rearranges = True
    has_strides = True

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        format_ = expect_movable(self, inputs, 1)
        if math.prod(self.shape) != inputs[0].elements or min(self.shape, default=1) < 0:
            raise InvalidArgument("reshape", expected=f"{inputs[0].elements} elements", found=f"shape {self.shape}")
        return TensorType(self.shape, format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].reshape(self.shape)

    def is_view(self, inputs: Sequence[TensorType], output: TensorType) -> bool:
        return inputs[0].layout == output.layout == ROW_MAJOR

    def is_identity(self, inputs: Sequence[TensorType]) -> bool:
        return True

    def strided(self, x: Strides) -> Strides | None:
        return x.reshaped(self.shape)

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...] | None:
        return (axis,) if self.shape[: axis + 1] == inputs[0].shape[: axis + 1] else None

    def of_part(self, axis: int, part: range) -> Reshape:
        return Reshape((*self.shape[:axis], len(part), *self.shape[axis + 1 :]))
