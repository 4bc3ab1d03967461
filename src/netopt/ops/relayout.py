"""The same tensor in another layout: put between ops by the pass that chooses layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.numerics import FLOATS, WHOLES
from netopt.ops.op import Layout, Layouts, Op, TensorType, expect_movable


@dataclass(frozen=True)
class Relayout(Op):
    """y = x. The layouts are those of the types of x and y."""

    name: ClassVar[str] = "relayout"
    layouts = Layouts.ANY
    formats = (*FLOATS, *WHOLES)
    takes_codes = True
    flushes_denormals = False

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_movable(self, inputs, 1)
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0]

    def wanted_layout(self, index: int, inputs: Sequence[TensorType], output: TensorType) -> Layout | None:
        return None
