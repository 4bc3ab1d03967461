"""Softmax and log-softmax along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.ops.op import Op, TensorType, expect_axis, expect_inputs


@dataclass(frozen=True)
class Softmax(Op):
    """y = exp(x - m) / sum(exp(x - m)), m the maximum along `axis`; with `log`, x - m - log(sum(exp(x - m)))."""

    axis: int
    log: bool = False
    name: ClassVar[str] = "softmax"

    @property
    def label(self) -> str:
        return "log_softmax" if self.log else "softmax"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        expect_axis(self, self.axis, len(inputs[0].shape))
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        function = torch.log_softmax if self.log else torch.softmax
        return function(inputs[0], self.axis)

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...] | None:
        return (axis,) if axis != self.axis else None
