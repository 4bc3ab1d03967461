"""Pixel shuffle (Shi et al., 1609.05158) and its inverse: channels to and from blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs


@dataclass(frozen=True)
class PixelShuffle(Op):
    """y (batch, c, r height, r width) with y[c, r i + a, r j + b] = x[c r^2 + r a + b, i, j], r the `factor`."""

    factor: int
    name: ClassVar[str] = "pixel_shuffle"
    layouts = Layouts.IMAGES
    formats = FLOATS
    takes_codes = True
    flushes_denormals = False

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        shape, r = inputs[0].shape, self.factor
        if len(shape) != 4 or r < 1 or shape[1] % (r * r):
            raise InvalidArgument(
                "pixel_shuffle", expected=f"(batch, a multiple of {r * r}, height, width)", found=shape
            )
        return TensorType((shape[0], shape[1] // (r * r), shape[2] * r, shape[3] * r))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(inputs[0], self.factor)


@dataclass(frozen=True)
class PixelUnshuffle(Op):
    """The inverse: y (batch, c r^2, height, width) with y[c r^2 + r a + b, i, j] = x[c, r i + a, r j + b]."""

    factor: int
    name: ClassVar[str] = "pixel_unshuffle"
    layouts = Layouts.IMAGES
    formats = FLOATS
    takes_codes = True
    flushes_denormals = False

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        shape, r = inputs[0].shape, self.factor
        if len(shape) != 4 or r < 1 or shape[2] % r or shape[3] % r:
            raise InvalidArgument("pixel_unshuffle", expected=f"(batch, channels, multiples of {r})", found=shape)
        return TensorType((shape[0], shape[1] * r * r, shape[2] // r, shape[3] // r))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return F.pixel_unshuffle(inputs[0], self.factor)
