"""The same tensor in another layout: put between ops by the pass that chooses layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.ops.op import Op, TensorType, expect_inputs


@dataclass(frozen=True)
class Relayout(Op):
    """y = x. The layouts are those of the types of x and y."""

    name: ClassVar[str] = "relayout"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return inputs[0]
