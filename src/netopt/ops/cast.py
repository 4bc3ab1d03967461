"""Cast: the same numbers in another number format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, WHOLES, NumberFormat
from netopt.ops.op import Layouts, Op, TensorType, expect_movable

FORMATS: dict[str, NumberFormat] = {format_.name: format_ for format_ in (FLOAT32, *WHOLES)}


@dataclass(frozen=True)
class Cast(Op):
    """y is x in the format of this name, as `torch.Tensor.to` converts: fractions are cut, and truth is x != 0.

    Attributes:
        to: "float32", "int64", "int32", "uint8" or "bool". Of float32 numbers beyond the format's the result is any.
    """

    to: str
    name: ClassVar[str] = "cast"
    layouts = Layouts.ANY
    formats = (FLOAT32, *WHOLES)
    elementwise = True

    def __post_init__(self) -> None:
        if self.to not in FORMATS:
            raise InvalidArgument("format of cast", expected=f"one of {', '.join(FORMATS)}", found=self.to)

    @property
    def format(self) -> NumberFormat:
        """What y is stored in."""
        return FORMATS[self.to]

    @property
    def label(self) -> str:
        return f"to {self.to}"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_movable(self, inputs, 1)
        return TensorType(inputs[0].shape, self.format)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        # The interpreter's floating type stands for float32.
        is_number = self.format == FLOAT32 and x.is_floating_point()
        return x if is_number else x.to(self.format.tensor_dtype)

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ == self.format

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...]:
        return (axis,)
