"""Concatenate along an axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import BFLOAT16, FLOATS, WHOLES, NumberFormat
from netopt.ops.op import Layouts, Op, TensorType, expect_axis, expect_movable, step_bytes


@dataclass(frozen=True)
class Concat(Op):
    """y is the inputs, one after the other along `axis`.

    Attributes:
        axis: counts from the front.
        in_place: each input has been written where it belongs in the output's memory, so that nothing is copied. Set
            by the pass `write_concat_in_place`.
    """

    axis: int
    in_place: bool = False
    name: ClassVar[str] = "concat"
    layouts = Layouts.ANY
    formats = (*FLOATS, *WHOLES)
    takes_codes = True
    keeps_format = True
    flushes_denormals = False

    @property
    def label(self) -> str:
        return f"{self.name} in place" if self.in_place else self.name

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        format_ = expect_movable(self, inputs, max(1, len(inputs)))
        first = inputs[0].shape
        expect_axis(self, self.axis, len(first))
        for type_ in inputs:
            if len(type_.shape) != len(first) or _without(type_.shape, self.axis) != _without(first, self.axis):
                raise InvalidArgument(
                    "concat",
                    expected=f"shapes that differ along axis {self.axis} alone",
                    found=[t.shape for t in inputs],
                )
        total = sum(type_.shape[self.axis] for type_ in inputs)
        return TensorType((*first[: self.axis], total, *first[self.axis + 1 :]), format_)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(inputs, self.axis)

    def is_view(self, inputs: Sequence[TensorType], output: TensorType) -> bool:
        return self.in_place

    def view_offsets(self, inputs: Sequence[TensorType], output: TensorType) -> tuple[int, ...]:
        step = step_bytes(output, self.axis)
        sizes = (type_.shape[self.axis] for type_ in inputs)
        return tuple(step * end for end in accumulate(sizes, initial=0))[:-1]

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        # Its kernel rounds images alone.
        return super().reads(index, format_, inputs) and (format_ != BFLOAT16 or len(inputs[0].shape) == 4)

    def with_height(self, inputs: Sequence[TensorType]) -> Op:
        return dataclasses.replace(self, axis=3 if self.axis == 2 else self.axis)

    def is_identity(self, inputs: Sequence[TensorType]) -> bool:
        return len(inputs) == 1


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
