"""A part of a network that is not lowered: PyTorch runs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import fx

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, Shape
from netopt.ops.op import Op, TensorType


@dataclass(frozen=True, eq=False)
class TorchRegion(Op):
    """All results of a traced function, one after the other in row-major order, as one tensor (elements,).

    An op has one output, and the region must run once: what reads a result of several reads a slice of the output. The
    output of a region with one result has that result's shape.

    It is no op of a file: it is code.

    Attributes:
        function: from float32 tensors to a tuple of float32 tensors; it holds its constants, which are its own.
        takes: the shapes of the inputs.
        gives: the shapes of the results.
        aten: the ATen ops that it runs, each once, such as "aten.sort.default".
    """

    function: fx.GraphModule = field(repr=False)
    takes: tuple[Shape, ...]
    gives: tuple[Shape, ...]
    aten: tuple[str, ...]
    name: ClassVar[str] = "torch_region"
    # It may draw random numbers.
    is_repeatable = False
    # It runs as the calling thread does.
    flushes_denormals = False

    @property
    def label(self) -> str:
        """Marked in tables, so that nobody overlooks it."""
        return f"PyTorch: {', '.join(self.aten)}"

    @property
    def constant_bytes(self) -> int:
        """Bytes of the tensors that the function holds."""
        return sum(tensor.nbytes for tensor in self.function.buffers())

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        found = tuple(type_.shape for type_ in inputs)
        if found != self.takes or any(type_.format != FLOAT32 for type_ in inputs):
            raise InvalidArgument("inputs of a region in PyTorch", expected=f"float32 {self.takes}", found=found)
        if len(self.gives) == 1:
            return TensorType(self.gives[0])
        return TensorType((sum(math.prod(shape) for shape in self.gives),))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        """In float32 whatever the inputs are, since a traced function may convert; the result has the inputs' type."""
        dtype = inputs[0].dtype if inputs else torch.float32
        results = self.function(*(value.to(torch.float32) for value in inputs))
        if len(results) == 1:
            return results[0].to(dtype)  # type: ignore[no-any-return]
        return torch.cat([result.reshape(-1) for result in results]).to(dtype)
