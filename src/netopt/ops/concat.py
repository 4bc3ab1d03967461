"""Concatenate along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.ops.op import Op, TensorType, expect_axis, expect_inputs


@dataclass(frozen=True)
class Concat(Op):
    """y is the inputs, one after the other along `axis`."""

    axis: int
    name: ClassVar[str] = "concat"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, max(1, len(inputs)))
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
        return TensorType((*first[: self.axis], total, *first[self.axis + 1 :]))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat(inputs, self.axis)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
