"""Two-dimensional convolution with weights of one bit, and inputs of one bit or of floating numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.binary_epilogue import BinaryEpilogueOp
from netopt.ops.conv2d import Convolution
from netopt.ops.op import Layouts, TensorType
from netopt.ops.pointwise import Pointwise
from netopt.ops.spatial import Pair, Sides


@dataclass(frozen=True)
class BinaryConv2d(BinaryEpilogueOp, Convolution):
    """y = activation(scale (x * W) + bias + residual); with `has_threshold` y = +1 where x * W >= t, else -1.

    Inputs, in order: x (batch, in, height, width) and W (out, in / groups, kernel height, kernel width), of +1 and -1;
    then t (out,), whole numbers; or scale (out,), bias (out,), residual of the output's shape, each if any. x is of +1
    and -1, or without a threshold of floating numbers.

    Attributes:
        pad_one: x is padded with +1 in place of 0.
    """

    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    pad_one: bool = False
    has_threshold: bool = False
    has_scale: bool = False
    has_bias: bool = False
    has_residual: bool = False
    activation: Pointwise | None = None
    name: ClassVar[str] = "binary_conv2d"
    layouts = Layouts.IMAGES
    formats = FLOATS

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_epilogue()

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        self.expect_binary(inputs)
        if self.pad_one and any(self.padding) and not self.reads_signs(inputs):
            raise InvalidArgument("input of binary_conv2d padded with +1", expected="signs", found=str(inputs[0]))
        output = self.output_shape(inputs[0].shape, inputs[1].shape)
        self._check_words(inputs)
        self.expect_binary_epilogue(inputs, output[1], output)
        return TensorType(output)

    def _check_words(self, inputs: Sequence[TensorType]) -> None:
        """Raise unless each group of packed signs, read or written, has words of its own."""
        channels = [inputs[0].shape[1], *[inputs[1].shape[0]] * self.has_threshold]
        if self.groups > 1 and self.reads_signs(inputs) and any(count % (32 * self.groups) for count in channels):
            raise InvalidArgument(
                f"channels of {self.name} in {self.groups} groups", expected="whole words of signs", found=channels
            )

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        y = self.convolve(inputs[0], inputs[1], 1.0 if self.pad_one else 0.0)
        return self.apply_binary_epilogue(y, inputs, (-1, 1, 1))
