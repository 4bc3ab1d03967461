"""The shapes of a convolution of signs as its pipeline sees them, and what padding by 0 contributes to its sums.

Signs beyond the border are read as +1. A table says for each set of window elements that lie there what the sum is if
no sign differs: the weights that meet them are taken off.
"""

from __future__ import annotations

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.binary_tile import Unit, joined_bytes, tile_cost, tiles
from netopt.kernels.parts.conv2d_size import Conv2dSchedule, ImageSize, strips_of
from netopt.numerics import Shape
from netopt.ops import BinaryConv2d

# Bytes of packed weights that every tile of pixels may read anew.
_CACHED_WEIGHTS = 24 * 2**10


class BinarySize(ImageSize):
    """The shapes of a convolution of signs, as its pipeline sees them."""

    def __init__(self, problem: Problem[BinaryConv2d], cpu: Cpu) -> None:
        super().__init__(problem)
        self.binary, self.unit, self.cpu = problem.op, Unit.of(cpu), cpu
        self.channels = self.inputs
        self.steps = self.unit.steps(self.channels)
        _, _, self.x_height, self.x_width = problem.inputs[0].shape
        top, bottom, left, right = self.residual
        pixels = (self.height, self.width)
        if not self.is_matrix_product:
            pixels = (self.height + top + bottom, self.width + left + right)
        self.residual_shape = (self.batch, *pixels, self.groups, self.outputs)
        weights = self.groups * self.outputs * self.kernel_height * self.kernel_width * 4 * -(-self.channels // 32)
        self.pixels_first = weights <= _CACHED_WEIGHTS
        # Where the border is +1, and for a matrix product, the window's elements all count.
        self.exact = self.binary.pad_one or not any(self.binary.padding)
        self.classes = (1, 1) if self.exact else (self._classes(0), self._classes(1))

    def words(self, shape: Shape) -> Shape:
        """A shape in memory, (batch, height, width, channels), in words by group."""
        return (*shape[:3], self.groups, -(-shape[3] // self.groups // 32))

    def padded(self, schedule: Conv2dSchedule) -> int:
        """Outputs of a group, with those that fill the last tile."""
        tile = schedule.vectors * self.unit.lanes
        return -(-self.outputs // tile) * tile

    def parts(self, schedule: Conv2dSchedule) -> tuple[tuple[Shape, type[np.generic]], ...]:
        """Shapes and types of packed weights and table."""
        panel, padded = schedule.panel * self.unit.lanes, self.padded(schedule)
        window = (self.kernel_height, self.kernel_width)
        weight = (self.groups, padded // panel, *window, self.steps, panel)
        return (weight, self.unit.dtype), ((self.groups, self.classes[0] * self.classes[1], padded), np.int32)

    def packed_bytes(self, schedule: Conv2dSchedule) -> int:
        return joined_bytes(*self.parts(schedule))

    def tiles(self) -> list[tuple[int, int]]:
        """Register tiles (rows, vectors), the most promising first: of a line, or of several short lines."""
        whole = self.binary.has_threshold
        costs = {
            tile: self.height * tile_cost(self.width, self.outputs, tile, self.cpu)
            for tile in tiles(self.width, self.outputs, self.cpu, whole_words=whole)
        }
        for rows, vectors in tiles(31, self.outputs, self.cpu, whole_words=whole):
            if rows % self.width == 0 and self.width < rows <= self.height * self.width:
                costs[rows, vectors] = sum(
                    strip.count * tile_cost(strip.lines * self.width, self.outputs, (rows, vectors), self.cpu)
                    for strip in strips_of(self, rows)
                )
        return sorted(costs, key=lambda tile: (costs[tile], tile))

    # --- the border

    def _outside(self, axis: int, at: int, position: int) -> bool:
        """Whether the window's element lies in the padding, along height (0) or width (1), for an output."""
        op = self.binary
        place = at * op.stride[axis] + position * op.dilation[axis] - op.padding[2 * axis]
        return not 0 <= place < (self.x_height, self.x_width)[axis]

    def _counts(self, axis: int, at: int) -> tuple[int, int]:
        """How many elements of the window lie before, and behind, the image along an axis, for an output."""
        kernel = (self.kernel_height, self.kernel_width)[axis]
        op = self.binary
        places = [at * op.stride[axis] + k * op.dilation[axis] - op.padding[2 * axis] for k in range(kernel)]
        return sum(p < 0 for p in places), sum(p >= (self.x_height, self.x_width)[axis] for p in places)

    def _classes(self, axis: int) -> int:
        """Numbers of outputs along an axis that differ in what of their window lies in the padding, at most."""
        extent = (self.height, self.width)[axis]
        return self._counts(axis, 0)[0] + self._counts(axis, extent - 1)[1] + 1

    def _class_of(self, axis: int, at: hl.Expr) -> hl.Expr:
        """The class of an output: rises by one with each element that enters at the front or leaves at the back."""
        if self.classes[axis] == 1:
            return hl.Expr(0)
        op, kernel = self.binary, (self.kernel_height, self.kernel_width)[axis]
        stride, dilation, padding = op.stride[axis], op.dilation[axis], op.padding[2 * axis]
        extent = (self.x_height, self.x_width)[axis]
        before = hl.clamp((padding - at * stride + dilation - 1) / dilation, 0, kernel)
        until = hl.clamp((extent + padding - at * stride + dilation - 1) / dilation, 0, kernel)
        return self._counts(axis, 0)[0] - before + kernel - until

    def class_at(self, x: hl.Expr, y: hl.Expr) -> hl.Expr:
        """The row of the table for an output."""
        return self._class_of(0, y) * self.classes[1] + self._class_of(1, x)

    def table(self, weight: Array, padded: int) -> Array:
        """For each class and output, the sum if no sign differs: (groups, classes, padded), int32.

        weight: (groups, out, height, width, in). What is outside the image counts as +1 in the sum of products, and is
        to count as 0: the weights there, summed, are taken off.
        """
        sums = weight.astype(np.int32).sum(-1)
        result = np.zeros((self.groups, *self.classes, padded), np.int32)
        result[..., : self.outputs] = self.channels * self.kernel_height * self.kernel_width
        if not self.exact:
            rows, columns = (self._examples(axis) for axis in (0, 1))
            for row, y in rows.items():
                for column, x in columns.items():
                    outside = np.array(
                        [
                            [self._outside(0, y, i) or self._outside(1, x, j) for j in range(self.kernel_width)]
                            for i in range(self.kernel_height)
                        ]
                    )
                    result[:, row, column, : self.outputs] -= (sums * outside).sum((2, 3))
        return result.reshape(self.groups, -1, padded)

    def _examples(self, axis: int) -> dict[int, int]:
        """For each class along an axis an output that is in it."""
        first = self._counts(axis, 0)[0]
        result: dict[int, int] = {}
        for at in range((self.height, self.width)[axis]):
            before, behind = self._counts(axis, at)
            result.setdefault(first - before + behind, at)
        return result
