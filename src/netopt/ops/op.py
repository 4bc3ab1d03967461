"""What every op of a graph tells about itself: the contract that the interpreter, the kernels and the runtime keep.

An op is a frozen dataclass of its attributes. It has one output. Its `reference` is plain PyTorch, exact in whatever
floating type the inputs have, so that the same text gives the float32 answer and the float64 one to judge it by.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, NumberFormat, Shape


@dataclass(frozen=True)
class TensorType:
    """Static shape and number format of a value."""

    shape: Shape
    format: NumberFormat = FLOAT32

    @property
    def bytes(self) -> int:
        """Bytes of the dense tensor."""
        return self.format.storage_bytes(self.shape)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.format.name}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Op(ABC):
    """An operation with its attributes."""

    name: ClassVar[str]
    # The output is a view of the first input: no kernel runs and no memory is used.
    is_view: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """How the op is called in tables."""
        return self.name

    @abstractmethod
    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        """The type of the output.

        Raises:
            InvalidArgument: the inputs do not fit the op.
        """

    @abstractmethod
    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The value of the output."""

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        """Multiply-adds of the op's matrix products or convolutions; 0 for all other ops."""
        return 0

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        """Inputs whose memory the output may take over.

        Each element of such an input is read before the element of the same index is written, and not after.
        """
        return ()


def expect_inputs(op: Op, inputs: Sequence[TensorType], number: int) -> None:
    """Raise unless there are `number` float32 inputs."""
    if len(inputs) != number:
        raise InvalidArgument(f"inputs of {op.label}", expected=str(number), found=len(inputs))
    for type_ in inputs:
        if type_.format != FLOAT32:
            raise InvalidArgument(f"input format of {op.label}", expected="float32", found=type_.format.name)


def expect_axis(op: Op, axis: int, rank: int) -> None:
    """Raise unless `axis` counts from the front and is within a tensor of `rank` axes."""
    if not 0 <= axis < rank:
        raise InvalidArgument(f"axis of {op.label}", expected=f"0 to {rank - 1}", found=axis)


def expect_epsilon(op: Op, epsilon: float) -> None:
    """Raise unless `epsilon` is a finite number that is not negative."""
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise InvalidArgument(f"epsilon of {op.label}", expected="a finite number from 0", found=epsilon)


def same_shape_operands(inputs: Sequence[TensorType], output: Shape) -> tuple[int, ...]:
    """Indices of the inputs that have the shape of the output, for elementwise ops."""
    return tuple(i for i, type_ in enumerate(inputs) if type_.shape == output)
