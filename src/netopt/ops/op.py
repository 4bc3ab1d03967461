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
class Layout:
    """The order of a tensor's elements in memory.

    Attributes:
        channels_last: (batch, channels, height, width) lies in memory as (batch, height, width, channels).
        halo: rows and columns of zeros around each image: top, bottom, left, right. A convolution with zero padding
            reads them like any other pixel. Only with `channels_last`.
        pitch: channels from one pixel to the next in memory, for a value that lies among the channels of a wider one;
            0 where its pixels lie next to each other. Only with `channels_last`.
    """

    channels_last: bool = False
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)
    pitch: int = 0

    def __post_init__(self) -> None:
        if self.pitch < 0 or (self.pitch and not self.channels_last):
            raise InvalidArgument("pitch", expected="channels from 0, with channels last", found=self.pitch)
        if len(self.halo) != 4 or min(self.halo) < 0 or (any(self.halo) and not self.channels_last):
            raise InvalidArgument("halo", expected="four sizes from 0, with channels last", found=self.halo)

    def physical(self, shape: Shape) -> Shape:
        """The row-major shape in memory of a tensor of the logical shape `shape`, halo included.

        With a pitch, these elements do not follow each other without gaps: see `TensorType.span`.
        """
        if not self.channels_last:
            return shape
        if len(shape) != 4:
            raise InvalidArgument("shape with channels last", expected="four axes", found=shape)
        top, bottom, left, right = self.halo
        batch, channels, height, width = shape
        if self.pitch and self.pitch <= channels:
            raise InvalidArgument("pitch", expected=f"0, or more than the {channels} channels", found=self.pitch)
        return batch, height + top + bottom, width + left + right, channels


ROW_MAJOR = Layout()
CHANNELS_LAST = Layout(channels_last=True)


@dataclass(frozen=True)
class TensorType:
    """Static shape, number format and layout of a value. Ops know nothing of layouts; memory and kernels do."""

    shape: Shape
    format: NumberFormat = FLOAT32
    layout: Layout = ROW_MAJOR

    @property
    def bytes(self) -> int:
        """Bytes of the elements, halo included."""
        return self.format.storage_bytes(self.layout.physical(self.shape))

    @property
    def span(self) -> int:
        """Bytes from the first element in memory to the end of the last: `bytes`, and with a pitch the gaps, too."""
        shape = self.layout.physical(self.shape)
        if not self.layout.pitch or not math.prod(shape):
            return self.format.storage_bytes(shape)
        gaps = (math.prod(shape[:3]) - 1) * (self.layout.pitch - shape[3])
        return self.bytes + self.format.storage_bytes((gaps,))

    @property
    def logical(self) -> TensorType:
        """The type in row-major layout."""
        return TensorType(self.shape, self.format)

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        text = f"{self.format.name}[{', '.join(map(str, self.shape))}]"
        if self.layout.channels_last:
            text += " channels last"
        if any(self.layout.halo):
            text += f" halo {self.layout.halo}"
        if self.layout.pitch:
            text += f" pitch {self.layout.pitch}"
        return text


@dataclass(frozen=True)
class Op(ABC):
    """An operation with its attributes."""

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """How the op is called in tables."""
        return self.name

    @property
    def gives_signs(self) -> bool:
        """Whether all that it computes is +1 and -1."""
        return False

    @abstractmethod
    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        """The type of the output, in row-major layout.

        Where it is float32, the graph may store it in bfloat16, and where it `gives_signs` in one bit.

        Raises:
            InvalidArgument: the inputs do not fit the op.
        """

    @abstractmethod
    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The value of the output."""

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        """Multiply-adds of the op's matrix products or convolutions; 0 for all other ops."""
        return 0

    def scratch_bytes(self, inputs: Sequence[TensorType]) -> int:
        """Bytes of memory that the op's kernel needs while it runs, beside its inputs and output."""
        return 0

    def is_view(self, inputs: Sequence[TensorType], output: TensorType) -> bool:
        """Whether the output is its inputs' memory, seen otherwise: then no kernel runs and no memory is used."""
        return False

    def view_offsets(self, inputs: Sequence[TensorType], output: TensorType) -> tuple[int, ...]:
        """For a view: bytes from the output's first element in memory to that of each input."""
        return (0,) * len(inputs)

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        """Inputs whose memory the output may take over.

        Each element of such an input is read before the element of the same index is written, and not after.
        """
        return ()


def expect_inputs(op: Op, inputs: Sequence[TensorType], number: int) -> None:
    """Raise unless there are `number` inputs of real numbers."""
    expect_number(op, inputs, number)
    for type_ in inputs:
        if not type_.format.is_real:
            raise InvalidArgument(f"input format of {op.label}", expected="float32", found=type_.format.name)


def expect_number(op: Op, inputs: Sequence[TensorType], number: int) -> None:
    """Raise unless there are `number` inputs."""
    if len(inputs) != number:
        raise InvalidArgument(f"inputs of {op.label}", expected=str(number), found=len(inputs))


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


def step_bytes(type_: TensorType, axis: int) -> int:
    """Bytes from an element in memory to the next along `axis`: channels of images, or any axis in row-major order."""
    inner = (1,) if type_.layout.channels_last else type_.shape[axis + 1 :]
    return type_.format.storage_bytes(inner)
