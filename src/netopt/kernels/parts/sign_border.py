"""What padding by 0 contributes to the sums of a convolution of signs.

Signs beyond the border are read as +1. A table says for each set of window elements that lie there what the sum is if
no sign differs: the weights that meet them are taken off.
"""

from __future__ import annotations

import halide as hl
import numpy as np

from netopt.kernels.machine.formats import Array
from netopt.kernels.parts.conv2d_size import ImageSize
from netopt.ops import BinaryConv2d


class SignBorder:
    """The classes of outputs that differ in what of their window lies in the padding."""

    def __init__(self, op: BinaryConv2d, size: ImageSize) -> None:
        """Of the convolution `op`, whose shapes are `size`."""
        self.op, self.size = op, size
        self.kernel = (size.kernel_height, size.kernel_width)
        # Where the border is +1, and for a matrix product, the window's elements all count.
        self.exact = op.pad_one or not any(op.padding)
        self.classes = (1, 1) if self.exact else (self._classes(0), self._classes(1))

    def class_at(self, x: hl.Expr, y: hl.Expr) -> hl.Expr:
        """The row of the table for an output."""
        return self._class_of(0, y) * self.classes[1] + self._class_of(1, x)

    def table(self, weight: Array, padded: int) -> Array:
        """For each class and output, the sum if no sign differs: (groups, classes, padded), int32.

        weight: (groups, out, height, width, in). What is outside the image counts as +1 in the sum of products, and is
        to count as 0: the weights there, summed, are taken off.
        """
        size, (height, width) = self.size, self.kernel
        sums = weight.astype(np.int32).sum(-1)
        result = np.zeros((size.groups, *self.classes, padded), np.int32)
        result[..., : size.outputs] = size.inputs * height * width
        if not self.exact:
            rows, columns = (self._examples(axis) for axis in (0, 1))
            for row, y in rows.items():
                for column, x in columns.items():
                    below, beside = (
                        np.array([self._outside(axis, at, i) for i in range(self.kernel[axis])])
                        for axis, at in enumerate((y, x))
                    )
                    outside = below[:, None] | beside
                    result[:, row, column, : size.outputs] -= (sums * outside).sum((2, 3))
        return result.reshape(size.groups, -1, padded)

    def _places(self, axis: int, at: int) -> list[int]:
        """Where the elements of the window lie along height (0) or width (1), for an output."""
        op = self.op
        first = at * op.stride[axis] - op.padding[2 * axis]
        return [first + k * op.dilation[axis] for k in range(self.kernel[axis])]

    def _outside(self, axis: int, at: int, position: int) -> bool:
        """Whether an element of the window lies in the padding, along an axis, for an output."""
        return not 0 <= self._places(axis, at)[position] < self.size.x_size[axis]

    def _counts(self, axis: int, at: int) -> tuple[int, int]:
        """How many elements of the window lie before, and behind, the image along an axis, for an output."""
        places = self._places(axis, at)
        return sum(p < 0 for p in places), sum(p >= self.size.x_size[axis] for p in places)

    def _extent(self, axis: int) -> int:
        return (self.size.height, self.size.width)[axis]

    def _classes(self, axis: int) -> int:
        """Numbers of outputs along an axis that differ in what of their window lies in the padding, at most."""
        return self._counts(axis, 0)[0] + self._counts(axis, self._extent(axis) - 1)[1] + 1

    def _class_of(self, axis: int, at: hl.Expr) -> hl.Expr:
        """The class of an output: rises by one with each element that enters at the front or leaves at the back."""
        if self.classes[axis] == 1:
            return hl.Expr(0)
        op, kernel = self.op, self.kernel[axis]
        stride, dilation, padding = op.stride[axis], op.dilation[axis], op.padding[2 * axis]
        before = hl.clamp((padding - at * stride + dilation - 1) / dilation, 0, kernel)
        until = hl.clamp((self.size.x_size[axis] + padding - at * stride + dilation - 1) / dilation, 0, kernel)
        return self._counts(axis, 0)[0] - before + kernel - until

    def _examples(self, axis: int) -> dict[int, int]:
        """For each class along an axis an output that is in it."""
        first = self._counts(axis, 0)[0]
        result: dict[int, int] = {}
        for at in range(self._extent(axis)):
            before, behind = self._counts(axis, at)
            result.setdefault(first - before + behind, at)
        return result
