"""A part of a network that is not lowered: PyTorch runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import fx

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, WHOLES
from netopt.ops.op import Op, TensorType


@dataclass(frozen=True, eq=False)
class TorchRegion(Op):
    """All results of a traced function, one after the other in row-major order, as one tensor (elements,).

    An op has one output, and the region must run once: what reads a result of several reads a slice of the output. The
    output of a region with one result has that result's shape, and its format; several are float32.

    It is no op of a file: it is code.

    Attributes:
        function: from tensors to a tuple of tensors; it holds its constants, which are its own.
        takes: the types of the inputs: float32, or whole numbers.
        gives: the types of the results.
        aten: the ATen ops that it runs, each once, such as "aten.sort.default".
    """

    function: fx.GraphModule = field(repr=False)
    takes: tuple[TensorType, ...]
    gives: tuple[TensorType, ...]
    aten: tuple[str, ...]
    name: ClassVar[str] = "torch_region"
    formats = (FLOAT32, *WHOLES)
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
        if tuple(type_.logical for type_ in inputs) != self.takes:
            expected, found = (", ".join(map(str, types)) or "none" for types in (self.takes, inputs))
            raise InvalidArgument("inputs of a region in PyTorch", expected=expected, found=found)
        if len(self.gives) == 1:
            return self.gives[0]
        return TensorType((sum(type_.elements for type_ in self.gives),))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        """In float32 where the inputs are numbers of another type, since a traced function may convert.

        Numbers of the result have the inputs' type.
        """
        dtype = next((value.dtype for value in inputs if value.is_floating_point()), torch.float32)
        results = self.function(*(v.to(torch.float32) if v.is_floating_point() else v for v in inputs))
        if len(results) == 1:
            return results[0].to(dtype) if results[0].is_floating_point() else results[0]  # type: ignore[no-any-return]
        return torch.cat([result.reshape(-1) for result in results]).to(dtype)
