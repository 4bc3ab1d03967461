"""What every op of a graph tells about itself: the contract that the interpreter, the kernels and the runtime keep.

An op is a frozen dataclass of its attributes. It has one output. Its `reference` is plain PyTorch, exact in whatever
floating type the inputs have, so that the same text gives the float32 answer and the float64 one to judge it by.

What passes, the memory plan and the checks of a program need to know of an op are class attributes and methods of `Op`.
Each has a default that is safe: less is done, or an error says what is missing. An op overrides what holds of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

import numpy as np
import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, TORCH, CodeFormat, NumberFormat, Shape, flushed
from netopt.ops.spatial import Sides
from netopt.ops.strides import Strides
from netopt.ops.tensor_type import CHANNELS_LAST, ROW_MAJOR, Layout, TensorType

__all__ = [
    "CHANNELS_LAST",
    "ROW_MAJOR",
    "Affine",
    "Layout",
    "Layouts",
    "Op",
    "TensorType",
    "broadcast_shape",
    "expect_axis",
    "expect_epsilon",
    "expect_inputs",
    "expect_movable",
    "expect_number",
    "is_code_of_values",
    "same_shape_operands",
    "step_bytes",
]


class Layouts(Enum):
    """The layouts that an op's kernel reads and writes."""

    # Row-major alone: images are copied for it.
    ROW_MAJOR = auto()
    # Images channels last, with any halo and pitch; row-major where they are of one pixel.
    IMAGES = auto()
    # All: it writes an image from inputs in any layout, and what is row-major from row-major inputs.
    ANY = auto()


@dataclass(frozen=True)
class Affine:
    """y = scale x + shift, a number of each for each channel."""

    scale: torch.Tensor
    shift: torch.Tensor


@dataclass(frozen=True)
class Op(ABC):
    """An operation with its attributes.

    Attributes:
        name: in files, tables and cache keys.
        layouts: what its kernel reads and writes.
        formats: in which its kernel reads and writes floating values; `reads` and `writes` tell more.
        takes_codes: whether its kernel reads and writes codes of one step, too; `is_exact_on` tells more.
        keeps_format: whether all its values have one format: it moves elements, or may become a view.
        elementwise: whether it is pointwise: each element is computed from those of the same index, after NumPy's
            broadcasting.
        rearranges: whether the output has each element of the input once, so that a factor may move past it.
        is_repeatable: whether the same inputs always give the same output, so that it may be computed beforehand.
        has_strides: whether the output's elements may be those of the input at regular steps: see `strided`.
    """

    name: ClassVar[str]
    layouts: ClassVar[Layouts] = Layouts.ROW_MAJOR
    formats: ClassVar[tuple[NumberFormat, ...]] = (FLOAT32,)
    takes_codes: ClassVar[bool] = False
    keeps_format: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    rearranges: ClassVar[bool] = False
    is_repeatable: ClassVar[bool] = True
    has_strides: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """How the op is called in tables."""
        return self.name

    @property
    def gives_signs(self) -> bool:
        """Whether all that it computes is +1 and -1."""
        return False

    @property
    def flushes_denormals(self) -> bool:
        """Whether it takes denormal numbers for zero and gives none; one that only moves elements hands them on."""
        return True

    # --- the type rule, the value, the cost

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

    def evaluate(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The reference as kernels compute it: denormals are zeros of their sign, read or given."""
        if not self.flushes_denormals:
            return self.reference(*inputs)
        return _without_denormals(self.reference(*map(_without_denormals, inputs)))

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        """Multiply-adds of the op's matrix products or convolutions; 0 for all other ops."""
        return 0

    # --- memory

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

    # --- what its kernel takes

    def constant_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        """Inputs that must be constants when lowering, such as weights, which are packed then."""
        return ()

    def wanted_layout(self, index: int, inputs: Sequence[TensorType], output: TensorType) -> Layout | None:
        """The layout that its kernel needs input `index` in; None if it takes what is there."""
        if self.layouts is Layouts.IMAGES:
            halo = self.halo_read(inputs) if index == 0 else (0, 0, 0, 0)
            fits = inputs[index].layout.channels_last or (inputs[index].lies_as_image and not any(halo))
            return None if fits else Layout(True, halo)
        # An image is read by logical coordinates, whatever the layout.
        reads_any = self.layouts is Layouts.ANY and output.layout.channels_last
        return None if reads_any else ROW_MAJOR

    def halo_read(self, inputs: Sequence[TensorType]) -> Sides:
        """The zeros around input 0 that its kernel reads from memory: top, bottom, left, right."""
        return (0, 0, 0, 0)

    def layout_missed(self, output: TensorType) -> str | None:
        """What its kernel needs of the output's layout besides `layouts`, in words; None where that holds."""
        return None

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        """Whether its kernel reads input `index` in this format."""
        return format_ in self.formats or (self.takes_codes and is_code_of_values(format_))

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        """Whether its kernel writes the output in this format."""
        if self.keeps_format:
            formats = [type_.format for type_ in inputs]
            if any(isinstance(each, CodeFormat) for each in (format_, *formats)):
                return all(each == format_ for each in formats)
            return self.reads(0, format_, inputs)
        return format_ in self.formats or (self.takes_codes and is_code_of_values(format_))

    def is_exact_on(self, format_: CodeFormat) -> bool:
        """Whether what it gives of codes in this format is its reference in float64, rounded once, to the bit."""
        return self.takes_codes

    def sums_products(self, inputs: Sequence[TensorType]) -> bool:
        """Whether each output sums two products or more of x and the weight, input 1.

        Then a CPU's dot products of narrow numbers compute it, and the weight is stored in the format of x.
        """
        return False

    # --- its epilogue: what it can do at its end, in place of a node after it

    def with_activation(self, activation: Op) -> Op | None:
        """The op that applies `activation` to all that it computes; None where its kernel cannot."""
        return None

    def with_residual(self) -> Op | None:
        """The op that adds one more input, its last, of the output's shape; None where its kernel cannot."""
        return None

    def with_scale(self, factor: float) -> Op | None:
        """The op whose output is multiplied by a number; None where its kernel cannot."""
        return None

    # --- what can be computed into its weight, input 1, and its bias; channels are axis 1. The first two are asked of
    # ops with an epilogue alone, which have a place for a bias.

    def fold_after(
        self, affine: Affine, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[TensorType]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The weight and bias with which its output is scale y + shift; None where there are none."""
        return None

    def fold_before(
        self, affine: Affine, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[TensorType]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The weight and bias with which it computes of x what it computes of scale x + shift; None for none."""
        return None

    def permute_channels(
        self, order: torch.Tensor, weight: torch.Tensor, inputs: Sequence[TensorType]
    ) -> torch.Tensor | None:
        """The weight with which it computes of x[:, order] what it computes of x; None where there is none."""
        return None

    def with_padding(self, sides: Sides) -> Op | None:
        """The op that sees so many more zeros around x (top, bottom, left, right); None where its kernel cannot."""
        return None

    def with_height(self, inputs: Sequence[TensorType]) -> Op | None:
        """The op that computes of images of height 1 what it computes of sequences (batch, channels, length).

        None where there is none. Inputs that are constants when lowering are the same for both; others have the height
        before their last axis.
        """
        return self if self.elementwise else None

    # --- how its elements depend on those of its inputs

    def is_identity(self, inputs: Sequence[TensorType]) -> bool:
        """Whether it gives its only input as it is, where the output has the same type."""
        return False

    def is_monotone(self, index: int, constants: Mapping[int, torch.Tensor]) -> bool:
        """Whether it is a monotone function of each number of input `index`, given the values of its other inputs."""
        return False

    def strided(self, x: Strides) -> Strides | None:
        """Its output as a view of what its input x is a view of; None where that has no strides."""
        return None

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...] | None:
        """How a part of the output along `axis` is computed: from which axis of each input the same part is read.

        None in the place of an input that is read as a whole; None in place of all where a part needs more than parts.
        """
        if not self.elementwise:
            return None
        rank = len(self.infer(inputs).shape)
        axes = [axis - rank + len(type_.shape) for type_ in inputs]
        return tuple(
            own if own >= 0 and type_.shape[own] > 1 else None for own, type_ in zip(axes, inputs, strict=True)
        )

    def of_part(self, axis: int, part: range) -> Op:
        """The op that computes this part of the output from the parts that `parallel_axes` tells."""
        return self


def is_code_of_values(format_: NumberFormat) -> bool:
    """Whether it has codes that kernels compute with: of one step, and of 8 or 16 bits at most."""
    return isinstance(format_, CodeFormat) and format_.is_of_values and not format_.is_by_channel and format_.bits <= 16


def _without_denormals(x: torch.Tensor) -> torch.Tensor:
    """Of float32 numbers; in float64 all of them are normal."""
    return flushed(x, TORCH) if x.dtype == torch.float32 else x


def expect_inputs(op: Op, inputs: Sequence[TensorType], number: int) -> None:
    """Raise unless there are `number` inputs of real numbers."""
    expect_number(op, inputs, number)
    for type_ in inputs:
        if not type_.format.is_real:
            raise InvalidArgument(f"input format of {op.label}", expected="float32", found=type_.format.name)


def expect_movable(op: Op, inputs: Sequence[TensorType], number: int) -> NumberFormat:
    """The format of what is made of the elements of `number` inputs: float32 of real numbers, or that of whole ones.

    Raises:
        InvalidArgument: there are more or fewer, or their formats differ.
    """
    expect_number(op, inputs, number)
    first = inputs[0].format
    if not first.is_whole:
        expect_inputs(op, inputs, number)
        return FLOAT32
    for type_ in inputs:
        if type_.format != first:
            raise InvalidArgument(f"input format of {op.label}", expected=first.name, found=type_.format.name)
    return first


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


def broadcast_shape(op: Op, inputs: Sequence[TensorType]) -> Shape:
    """The shape that the inputs broadcast to; raise where they do not."""
    try:
        return np.broadcast_shapes(*(type_.shape for type_ in inputs))
    except ValueError:
        found = " and ".join(map(str, inputs))
        raise InvalidArgument(f"shapes of {op.label}", expected="shapes that broadcast", found=found) from None


def same_shape_operands(inputs: Sequence[TensorType], output: Shape) -> tuple[int, ...]:
    """Indices of the inputs that have the shape of the output, for elementwise ops."""
    return tuple(i for i, type_ in enumerate(inputs) if type_.shape == output)


def step_bytes(type_: TensorType, axis: int) -> int:
    """Bytes from an element in memory to the next along `axis`: channels of images, or any axis in row-major order."""
    inner = (1,) if type_.layout.channels_last else type_.shape[axis + 1 :]
    return type_.format.storage_bytes(inner)
