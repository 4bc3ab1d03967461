"""Slice: a regular part of one axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import BFLOAT16, FLOATS, WHOLES, NumberFormat
from netopt.ops.op import Layouts, Op, TensorType, expect_axis, expect_movable, step_bytes
from netopt.ops.strides import Strides


@dataclass(frozen=True)
class Slice(Op):
    """y is x at `start`, `start + step`, ... below `stop` along `axis`; 0 <= start < stop <= size, step >= 1.

    With `in_place`, which the pass `write_concat_in_place` sets, y is read where it lies in x, and nothing is copied.
    """

    axis: int
    start: int
    stop: int
    step: int = 1
    in_place: bool = False
    name: ClassVar[str] = "slice"
    layouts = Layouts.ANY
    formats = (*FLOATS, *WHOLES)
    takes_codes = True
    keeps_format = True
    flushes_denormals = False
    has_strides = True

    @property
    def label(self) -> str:
        return f"{self.name} in place" if self.in_place else self.name

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        format_ = expect_movable(self, inputs, 1)
        shape = inputs[0].shape
        expect_axis(self, self.axis, len(shape))
        if not (0 <= self.start < self.stop <= shape[self.axis] and self.step >= 1):
            raise InvalidArgument(
                "slice",
                expected=f"0 <= start < stop <= {shape[self.axis]} and step >= 1",
                found=f"{self.start}:{self.stop}:{self.step}",
            )
        size = len(range(self.start, self.stop, self.step))
        return TensorType((*shape[: self.axis], size, *shape[self.axis + 1 :]), format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        index = [slice(None)] * inputs[0].dim()
        index[self.axis] = slice(self.start, self.stop, self.step)
        return inputs[0][tuple(index)].contiguous()

    def is_view(self, inputs: Sequence[TensorType], output: TensorType) -> bool:
        return self.in_place

    def view_offsets(self, inputs: Sequence[TensorType], output: TensorType) -> tuple[int, ...]:
        return (-step_bytes(inputs[0], self.axis) * self.start,)

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        # Its kernel rounds images alone.
        return super().reads(index, format_, inputs) and (format_ != BFLOAT16 or len(inputs[0].shape) == 4)

    def with_height(self, inputs: Sequence[TensorType]) -> Op:
        return dataclasses.replace(self, axis=3 if self.axis == 2 else self.axis)

    def is_identity(self, inputs: Sequence[TensorType]) -> bool:
        return True

    def strided(self, x: Strides) -> Strides | None:
        return x.cut(self.axis, range(self.start, self.stop, self.step))
