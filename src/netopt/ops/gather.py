"""Gather: the parts of a tensor along an axis that indices name, as rows of a table of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, INT32, INT64, WHOLES, NumberFormat
from netopt.ops.op import Op, TensorType, expect_axis, expect_movable, expect_number

INDICES = (INT64, INT32)


@dataclass(frozen=True)
class Gather(Op):
    """y[..., i, ...] = x[..., indices[i], ...]: the axis of x becomes the axes of the indices, input 1.

    An index below 0 counts from the end. One that is outside names the nearest part that there is, so that nothing
    beyond x is read: a program checks what its caller gives, and PyTorch refuses it.

    Attributes:
        axis: of x, counted from the front.
    """

    axis: int = 0
    name: ClassVar[str] = "gather"
    formats = (FLOAT32, *WHOLES)
    takes_codes = True
    flushes_denormals = False

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_number(self, inputs, 2)
        format_ = expect_movable(self, inputs[:1], 1)
        shape = inputs[0].shape
        expect_axis(self, self.axis, len(shape))
        if inputs[1].format not in INDICES:
            raise InvalidArgument("indices of gather", expected="int64 or int32", found=inputs[1].format.name)
        if not shape[self.axis]:
            raise InvalidArgument("axis of gather", expected="at least one part", found=inputs[0])
        return TensorType((*shape[: self.axis], *inputs[1].shape, *shape[self.axis + 1 :]), format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, indices = inputs
        size = x.shape[self.axis]
        flat = indices.reshape(-1).long()
        flat = torch.where(flat < 0, flat + size, flat).clamp(0, size - 1)
        shape = (*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :])
        return x.index_select(self.axis, flat).reshape(shape)

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ in INDICES if index == 1 else super().reads(index, format_, inputs)

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        if format_.is_whole or inputs[0].format.is_whole:
            return format_ == inputs[0].format
        return super().writes(format_, inputs)
