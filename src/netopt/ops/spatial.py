"""What the ops that slide a window over images share: the window, its shape rule and its checks."""

from __future__ import annotations

from dataclasses import dataclass

from netopt.errors import InvalidArgument
from netopt.numerics import Shape

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]


def sum_of_sides(one: Sides, other: Sides) -> Sides:
    """Both around an image, one within the other."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def union_of_sides(one: Sides, other: Sides) -> Sides:
    """As much as both need: the larger on each side."""
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


@dataclass(frozen=True)
class Window:
    """A window over (height, width).

    Attributes:
        kernel: its size.
        stride: step from one output to the next.
        padding: top, bottom, left, right.
        dilation: step from one element of the window to the next.
    """

    kernel: Pair
    stride: Pair
    padding: Sides
    dilation: Pair

    def check(self, subject: str) -> None:
        """Raise InvalidArgument unless sizes, strides and dilations are positive and paddings not negative."""
        positive = (*self.kernel, *self.stride, *self.dilation)
        if min(positive) < 1 or min(self.padding) < 0 or (len(positive), len(self.padding)) != (6, 4):
            raise InvalidArgument(f"window of {subject}", expected="positive sizes, padding from 0", found=self)

    def span(self, axis: int) -> int:
        """Input elements from the first to the last of the window along height (0) or width (1)."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def outputs(self, shape: Shape, subject: str) -> Pair:
        """(height, width) of the output for an input (batch, channels, height, width), rounded down.

        Raises:
            InvalidArgument: the window does not fit into the padded input.
        """
        if len(shape) != 4:
            raise InvalidArgument(f"input of {subject}", expected="(batch, channels, height, width)", found=shape)
        sizes = []
        for axis, size in enumerate(shape[2:]):
            padded = size + self.padding[2 * axis] + self.padding[2 * axis + 1]
            if padded < self.span(axis):
                raise InvalidArgument(
                    f"input of {subject}", expected=f"at least {self.span(axis)} along axis {axis + 2}", found=padded
                )
            sizes.append((padded - self.span(axis)) // self.stride[axis] + 1)
        return sizes[0], sizes[1]
