"""What a chain of reshapes, permutations, slices and broadcasts reads, as strides over the value at its beginning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from netopt.numerics import Shape
from netopt.ops.view import View

Extent = tuple[int, int]  # size, stride


@dataclass(frozen=True)
class Strides:
    """A strided view, axis by axis.

    Attributes:
        axes: each axis as parts (size, stride), outermost first: an axis that a reshape has merged has several, so
            that another reshape can take it apart again. No part is of size 1.
        offset: element where the view begins.
    """

    axes: tuple[tuple[Extent, ...], ...]
    offset: int = 0

    @classmethod
    def whole(cls, shape: Shape) -> Strides:
        """A tensor of this shape, as it lies."""
        view = View.whole(shape)
        return cls(
            tuple(((size, stride),) if size > 1 else () for size, stride in zip(shape, view.strides, strict=True))
        )

    @property
    def shape(self) -> Shape:
        return tuple(math.prod(size for size, _ in axis) for axis in self.axes)

    def permuted(self, axes: tuple[int, ...]) -> Strides:
        """Axis i is axis `axes[i]` of this view."""
        return Strides(tuple(self.axes[axis] for axis in axes), self.offset)

    def reshaped(self, shape: Shape) -> Strides | None:
        """The same elements in another shape; None where that has no strides."""
        parts = [part for axis in self.axes for part in axis]
        axes: list[tuple[Extent, ...]] = []
        for wanted in reversed(shape):
            axis: list[Extent] = []
            while wanted > 1:
                size, stride = parts.pop()
                if wanted % size == 0:
                    axis.insert(0, (size, stride))
                    wanted //= size
                elif size % wanted == 0:
                    axis.insert(0, (wanted, stride))
                    parts.append((size // wanted, stride * wanted))
                    wanted = 1
                else:
                    return None
            axes.insert(0, tuple(axis))
        return Strides(tuple(axes), self.offset)

    def cut(self, axis: int, indices: range) -> Strides | None:
        """These indices of an axis; None where that has no strides."""
        parts = merge(self.axes[axis])
        if len(parts) > 1:
            return None
        stride = parts[0][1] if parts else 0
        cut = ((len(indices), stride * indices.step),) if len(indices) > 1 else ()
        axes = (*self.axes[:axis], cut, *self.axes[axis + 1 :])
        return Strides(axes, self.offset + indices.start * stride)

    def broadcast(self, shape: Shape) -> Strides:
        """Repeated along axes of size 1, and along new axes in front."""
        axes = ((),) * (len(shape) - len(self.axes)) + self.axes
        repeated = (((size, 0),) if size > 1 and not axis else axis for axis, size in zip(axes, shape, strict=True))
        return Strides(tuple(repeated), self.offset)

    def view(self) -> View | None:
        """The view with one stride for each axis, if it has that."""
        axes = [merge(axis) for axis in self.axes]
        if any(len(axis) > 1 for axis in axes):
            return None
        return View(self.shape, tuple(axis[0][1] if axis else 0 for axis in axes), self.offset)


def merge(parts: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """The same elements in as few parts as possible."""
    merged: list[Extent] = []
    for size, stride in parts:
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return tuple(merged)
