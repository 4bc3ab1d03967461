"""The matrix product of two computed tensors, for all matrices of a batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from netopt.errors import InvalidArgument
from netopt.numerics import Shape
from netopt.ops.op import Op, TensorType, expect_inputs
from netopt.ops.view import View


@dataclass(frozen=True)
class Matmul(Op):
    """z = scale * x @ y; x (..., m, k), y (..., k, n), whose leading axes broadcast.

    Attributes:
        scale: a number.
        first: the view of the first input that is x; None where it is x itself.
        second: the same of the second input and y.
        axes: a permutation of the axes of z that the output has; () leaves them as they are.
    """

    scale: float = 1.0
    first: View | None = None
    second: View | None = None
    axes: tuple[int, ...] = ()
    name: ClassVar[str] = "matmul"

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise InvalidArgument("scale of matmul", expected="a finite number", found=self.scale)
        if sorted(self.axes) != list(range(len(self.axes))):
            raise InvalidArgument("axes of matmul", expected="a permutation", found=self.axes)

    def views(self, inputs: Sequence[TensorType]) -> tuple[View, View]:
        """How the inputs' elements are x and y."""
        first, second = (
            view or View.whole(type_.shape) for view, type_ in zip((self.first, self.second), inputs, strict=True)
        )
        return first, second

    def product_shape(self, inputs: Sequence[TensorType]) -> Shape:
        """(..., m, n): the shape of z."""
        first, second = self.views(inputs)
        x, y = first.shape, second.shape
        if len(x) < 2 or len(y) < 2 or x[-1] != y[-2]:
            raise InvalidArgument("matmul", expected="x (..., m, k) and y (..., k, n)", found=f"{x} and {y}")
        try:
            return (*np.broadcast_shapes(x[:-2], y[:-2]), x[-2], y[-1])
        except ValueError:
            raise InvalidArgument(
                "matmul", expected="leading axes that broadcast", found=f"{x[:-2]} and {y[:-2]}"
            ) from None

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 2)
        for view, type_ in zip((self.first, self.second), inputs, strict=True):
            if view is not None:
                view.check(type_.elements)
        shape = self.product_shape(inputs)
        if self.axes and len(self.axes) != len(shape):
            raise InvalidArgument("axes of matmul", expected=f"a permutation of {len(shape)}", found=self.axes)
        return TensorType(tuple(shape[axis] for axis in self.axes) if self.axes else shape)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x, y = (
            value if view is None else view.of(value)
            for value, view in zip(inputs, (self.first, self.second), strict=True)
        )
        z = x @ y
        if self.scale != 1.0:
            z = z * self.scale
        return z.permute(self.axes).contiguous() if self.axes else z

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        return math.prod(self.product_shape(inputs)) * self.views(inputs)[0].shape[-1]

    def with_scale(self, factor: float) -> Matmul:
        return dataclasses.replace(self, scale=self.scale * factor)

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...] | None:
        rank = len(self.infer(inputs).shape)
        if (self.axes or tuple(range(rank)))[axis] != rank - 2:
            return None
        # Rows of a view are cut by another view.
        return (len(inputs[0].shape) - 2 if self.first is None else None, None)

    def of_part(self, axis: int, part: range) -> Matmul:
        if self.first is None:
            return self
        shape, strides = list(self.first.shape), list(self.first.strides)
        offset = self.first.offset + part.start * strides[-2]
        shape[-2], strides[-2] = len(part), strides[-2] * part.step
        return dataclasses.replace(self, first=View(tuple(shape), tuple(strides), offset))
