"""Expand: repeat along axes of size 1, and along new axes in front, as NumPy's broadcasting does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, WHOLES, Shape
from netopt.ops.op import Op, TensorType, expect_movable
from netopt.ops.strides import Strides


@dataclass(frozen=True)
class Expand(Op):
    """y is x broadcast to `shape`."""

    shape: Shape
    name: ClassVar[str] = "expand"
    formats = (FLOAT32, *WHOLES)
    takes_codes = True
    keeps_format = True
    has_strides = True
    flushes_denormals = False

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        format_ = expect_movable(self, inputs, 1)
        try:
            fits = min(self.shape, default=1) > 0 and np.broadcast_shapes(inputs[0].shape, self.shape) == self.shape
        except ValueError:
            fits = False
        if not fits:
            raise InvalidArgument("expand", expected=f"a shape that {inputs[0].shape} broadcasts to", found=self.shape)
        return TensorType(self.shape, format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0].expand(self.shape).contiguous()

    def strided(self, x: Strides) -> Strides:
        return x.broadcast(self.shape)
