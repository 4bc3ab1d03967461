"""What ops with binary weights have for an epilogue: a threshold; or scale, bias, residual and activation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS, INT32, SIGNS, NumberFormat, Shape, SignFormat
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.op import Op, TensorType, expect_number


class BinaryEpilogueOp(EpilogueOp):
    """An op with inputs x, weight, then a threshold, or scale, bias and residual, each if any, in this order."""

    has_threshold: bool
    has_scale: bool

    @property
    def label(self) -> str:
        return f"{super().label} + threshold" if self.has_threshold else super().label

    @property
    def gives_signs(self) -> bool:
        return self.has_threshold

    @property
    def bias_index(self) -> int:
        return 2 + self.has_scale

    def check_epilogue(self) -> None:
        """Raise InvalidArgument where there is a threshold and something else."""
        others = self.has_scale or self.has_bias or self.has_residual or self.activation is not None
        if self.has_threshold and others:
            raise InvalidArgument(f"epilogue of {self.name}", expected="a threshold alone", found=self)

    def reads_signs(self, inputs: Sequence[TensorType]) -> bool:
        """Whether x is stored in one bit."""
        return isinstance(inputs[0].format, SignFormat)

    def expect_binary(self, inputs: Sequence[TensorType]) -> None:
        """Raise unless there are as many inputs as there should be, each in a format that it may have."""
        expect_number(self, inputs, 2 + self.has_threshold + self.has_scale + self.has_bias + self.has_residual)
        x, weight, *rest = (type_.format for type_ in inputs)
        fits = isinstance(weight, SignFormat) and (
            isinstance(x, SignFormat) or (x in FLOATS and not self.has_threshold)
        )
        taken = (INT32,) if self.has_threshold else FLOATS
        if not fits or not all(format_ in taken for format_ in rest):
            raise InvalidArgument(
                f"input formats of {self.label}",
                expected="signs, or floating x and signs; then int32 thresholds, or floating numbers",
                found=", ".join(type_.format.name for type_ in inputs),
            )

    def expect_binary_epilogue(self, inputs: Sequence[TensorType], outputs: int, output: Shape) -> None:
        """Raise unless what there is in the epilogue fits `outputs` channels and the output's shape."""
        if (self.has_threshold or self.has_scale) and inputs[2].shape != (outputs,):
            found = inputs[2].shape
            raise InvalidArgument(f"scale or threshold of {self.name}", expected=str((outputs,)), found=found)
        self.expect_epilogue(inputs, outputs, output)

    def apply_binary_epilogue(
        self, y: torch.Tensor, inputs: Sequence[torch.Tensor], along_channels: Shape
    ) -> torch.Tensor:
        """What becomes of the sums."""
        if self.has_threshold:
            return (y >= inputs[2].reshape(along_channels)).to(y.dtype) * 2 - 1
        if self.has_scale:
            y = y * inputs[2].reshape(along_channels)
        return self.apply_epilogue(y, inputs, along_channels)

    def constant_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return tuple(range(1, self.residual_index + self.has_threshold))

    def reads(self, index: int, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        # The type rule says where signs and integers stand.
        return isinstance(format_, SignFormat) or format_ == INT32 or super().reads(index, format_, inputs)

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ == SIGNS if self.has_threshold else super().writes(format_, inputs)

    def with_activation(self, activation: Op) -> Op | None:
        return None if self.has_threshold else super().with_activation(activation)

    def with_residual(self) -> Op | None:
        return None if self.has_threshold else super().with_residual()
