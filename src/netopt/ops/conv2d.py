"""Two-dimensional convolution with its epilogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS, CodeFormat, NumberFormat, Shape
from netopt.ops.epilogue import EpilogueOp, scale_columns, scale_rows
from netopt.ops.on_codes import reads_codes
from netopt.ops.op import Affine, Layouts, TensorType, expect_inputs, is_code_of_values
from netopt.ops.pointwise import Pointwise
from netopt.ops.spatial import Pair, Sides, Window, sum_of_sides


class Convolution(EpilogueOp):
    """What convolutions share; subclasses have the attributes.

    Inputs begin with x (batch, in, height, width) and W (out, in / groups, kernel height, kernel width).
    """

    stride: Pair
    padding: Sides  # top, bottom, left, right
    dilation: Pair
    groups: int

    def __post_init__(self) -> None:
        self.window((1, 1)).check(self.name)
        if self.groups < 1:
            raise InvalidArgument(f"groups of {self.name}", expected="at least 1", found=self.groups)

    def window(self, kernel: Pair) -> Window:
        """The window for a kernel of this size."""
        return Window(kernel, self.stride, self.padding, self.dilation)

    def output_shape(self, x: Shape, weight: Shape) -> Shape:
        """The output's shape.

        Raises:
            InvalidArgument: the weight does not fit the input.
        """
        if len(weight) != 4:
            raise InvalidArgument(f"weight of {self.name}", expected="(out, in / groups, height, width)", found=weight)
        height, width = self.window((weight[2], weight[3])).outputs(x, self.name)
        if x[1] != weight[1] * self.groups or weight[0] % self.groups:
            raise InvalidArgument(
                f"channels of {self.name}",
                expected=f"{weight[1]} x {self.groups} groups in, a multiple of them out",
                found=x[1],
            )
        return (x[0], weight[0], height, width)

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, border: float = 0.0) -> torch.Tensor:
        """x * W with padding by `border`, without an epilogue."""
        top, bottom, left, right = self.padding
        x = F.pad(x, (left, right, top, bottom), value=border)
        return F.conv2d(x, weight, None, self.stride, 0, self.dilation, self.groups)

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        return self.infer(inputs).elements * inputs[1].elements // inputs[1].shape[0]

    def halo(self, x: Shape, weight: Shape) -> Sides:
        """Rows and columns around x that the window reads: top, bottom, left, right."""
        return self.padding

    def halo_read(self, inputs: Sequence[TensorType]) -> Sides:
        return self.halo(inputs[0].shape, inputs[1].shape)


@dataclass(frozen=True)
class Conv2d(Convolution):
    """y = activation(x * W + bias + residual), with zero padding.

    Inputs, in order: x (batch, in, height, width), W (out, in / groups, kernel height, kernel width), bias (out,) if
    any, residual of the output's shape if any.
    """

    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)  # top, bottom, left, right
    dilation: Pair = (1, 1)
    groups: int = 1
    has_bias: bool = False
    has_residual: bool = False
    activation: Pointwise | None = None
    name: ClassVar[str] = "conv2d"
    layouts = Layouts.IMAGES
    formats = FLOATS

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 2 + self.has_bias + self.has_residual)
        output = self.output_shape(inputs[0].shape, inputs[1].shape)
        self.expect_epilogue(inputs, output[1], output)
        return TensorType(output)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.apply_epilogue(self.convolve(inputs[0], inputs[1]), inputs, (-1, 1, 1))

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        residual = super().in_place_operands(inputs)
        return (0, *residual) if self._scales_channels(inputs[1].shape) else residual

    def _scales_channels(self, weight: Shape) -> bool:
        """Whether each output is made of the input at its place alone: a multiplication and an addition a channel."""
        one_pixel = weight[2:] == (1, 1) and self.stride == (1, 1) and not any(self.padding)
        return one_pixel and weight[1] == 1 and weight[0] == self.groups

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        if not isinstance(format_, CodeFormat):
            return format_ in self.formats
        return reads_codes(self, index, format_, inputs)

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ in self.formats or is_code_of_values(format_)

    def is_depthwise(self, inputs: Sequence[TensorType]) -> bool:
        """Whether each channel has one filter of its own."""
        outputs, channels = inputs[1].shape[:2]
        return channels == 1 and outputs == self.groups > 1

    def sums_products(self, inputs: Sequence[TensorType]) -> bool:
        _, channels, _, width = inputs[1].shape
        depthwise = self.groups > 1 and channels == 1
        return not depthwise and (channels > 1 or width > 1)

    def fold_after(
        self, affine: Affine, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[TensorType]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        return scale_rows(affine, weight, bias) if self.is_bare else None

    def fold_before(
        self, affine: Affine, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[TensorType]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        # Padding is zero, not the shift.
        fits = self.groups == 1 and not any(self.padding)
        return scale_columns(affine, weight, bias) if fits else None

    def with_padding(self, sides: Sides) -> Conv2d:
        return dataclasses.replace(self, padding=sum_of_sides(self.padding, sides))
