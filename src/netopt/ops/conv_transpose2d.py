"""Two-dimensional transposed convolution with its epilogue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import Shape
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.op import Affine, Layouts, TensorType, expect_inputs
from netopt.ops.pointwise import Pointwise
from netopt.ops.spatial import Pair, Sides, Window


@dataclass(frozen=True)
class Phase:
    """Along one axis, the outputs that are made with the same elements of the kernel: every stride-th.

    Output `first + stride * q`, for q below `count`, is the sum over j of kernel element `taps[j]` times the input
    element `q + start + step * j`, which is 0 outside of the input: a dense convolution.
    """

    first: int
    count: int
    taps: tuple[int, ...]
    start: int
    step: int


@dataclass(frozen=True)
class ConvTranspose2d(EpilogueOp):
    """y = activation(x *^T W + bias + residual): what PyTorch's conv_transpose2d computes.

    Input pixel (i, j) adds x[i, j] W to the output from (i * stride - top, j * stride - left) on.

    Inputs, in order: x (batch, in, height, width), W (in, out / groups, kernel height, kernel width), bias (out,) if
    any, residual of the output's shape if any.
    """

    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)  # top, bottom, left, right: what is cut off the output
    output_padding: Pair = (0, 0)  # what is added to it below and to the right, before it is cut
    dilation: Pair = (1, 1)
    groups: int = 1
    has_bias: bool = False
    has_residual: bool = False
    activation: Pointwise | None = None
    name: ClassVar[str] = "conv_transpose2d"
    layouts = Layouts.IMAGES

    def __post_init__(self) -> None:
        Window((1, 1), self.stride, self.padding, self.dilation).check(self.name)
        if self.groups < 1 or len(self.output_padding) != 2 or min(self.output_padding) < 0:
            raise InvalidArgument(
                "groups and output_padding of conv_transpose2d",
                expected="at least 1, and two sizes from 0",
                found=(self.groups, self.output_padding),
            )

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 2 + self.has_bias + self.has_residual)
        x, weight = inputs[0].shape, inputs[1].shape
        if len(x) != 4 or len(weight) != 4 or x[1] != weight[0] or x[1] % self.groups:
            raise InvalidArgument(
                "conv_transpose2d",
                expected=f"x (batch, in, height, width), W (in, out / {self.groups}, height, width)",
                found=f"{x} and {weight}",
            )
        size = [self._length(axis, x[axis + 2], weight[axis + 2]) for axis in (0, 1)]
        if min(size) < 1:
            raise InvalidArgument("padding of conv_transpose2d", expected="one that leaves an output", found=size)
        output = (x[0], weight[1] * self.groups, *size)
        self.expect_epilogue(inputs, output[1], output)
        return TensorType(output)

    def _length(self, axis: int, size: int, kernel: int) -> int:
        full = (size - 1) * self.stride[axis] + (kernel - 1) * self.dilation[axis] + 1
        return full + self.output_padding[axis] - self.padding[2 * axis] - self.padding[2 * axis + 1]

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        y = F.conv_transpose2d(inputs[0], inputs[1], None, self.stride, 0, 0, self.groups, self.dilation)
        top, bottom, left, right = self.padding
        y = F.pad(y, (-left, self.output_padding[1] - right, -top, self.output_padding[0] - bottom))
        return self.apply_epilogue(y, inputs, (-1, 1, 1))

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        return inputs[0].elements * inputs[1].elements // inputs[1].shape[0]

    def phases(self, axis: int, size: int, kernel: int) -> list[Phase]:
        """The phases along height (0) or width (1), for an input of `size` and a kernel of `kernel` elements."""
        stride, dilation, cut = self.stride[axis], self.dilation[axis], self.padding[2 * axis]
        length = self._length(axis, size, kernel)
        result = []
        for first in range(min(stride, length)):
            # From the last to the first, so that the input is walked forwards.
            taps = tuple(k for k in reversed(range(kernel)) if (first + cut - k * dilation) % stride == 0)
            start = (first + cut - taps[0] * dilation) // stride if taps else 0
            count = -(-(length - first) // stride)
            result.append(Phase(first, count, taps, start, dilation // math.gcd(stride, dilation)))
        return result

    def halo(self, x: Shape, weight: Shape) -> Sides:
        """Rows and columns of zeros around x that the phases read: top, bottom, left, right."""
        sides: list[int] = []
        for axis in (0, 1):
            size = x[axis + 2]
            phases = [phase for phase in self.phases(axis, size, weight[axis + 2]) if phase.taps]
            ends = [p.start + p.step * (len(p.taps) - 1) + p.count - 1 for p in phases]
            sides += [max(0, *(-p.start for p in phases), 0), max(0, *(end - (size - 1) for end in ends), 0)]
        return sides[0], sides[1], sides[2], sides[3]

    def halo_read(self, inputs: Sequence[TensorType]) -> Sides:
        return self.halo(inputs[0].shape, inputs[1].shape)

    def fold_after(
        self, affine: Affine, weight: torch.Tensor, bias: torch.Tensor, inputs: Sequence[TensorType]
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        if not self.is_bare:
            return None
        grouped = weight.reshape(self.groups, -1, *weight.shape[1:])
        scaled = (grouped * affine.scale.reshape(self.groups, 1, -1, 1, 1)).reshape(weight.shape)
        return scaled, affine.scale * bias + affine.shift
