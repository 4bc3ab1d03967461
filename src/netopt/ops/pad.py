"""Padding: a tensor made larger by a constant or by its own elements."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import Shape
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs
from netopt.ops.spatial import Sides

MODES = ("constant", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class Pad(Op):
    """y is x with `before` and `after` more elements on each axis.

    They are `value`, or the elements of x mirrored at its first and last ("reflect"), its first and last again
    ("replicate"), or those of its other end ("circular").

    Attributes:
        mode: one of `MODES`.
        before: elements before the first, for each axis.
        after: elements after the last, for each axis.
        value: of the padding; 0 unless the mode is "constant".
    """

    mode: str
    before: Shape
    after: Shape
    value: float = 0.0
    name: ClassVar[str] = "pad"
    layouts = Layouts.ANY
    takes_codes = True
    flushes_denormals = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidArgument("mode of pad", expected=f"one of {', '.join(MODES)}", found=self.mode)
        if len(self.before) != len(self.after) or min((*self.before, *self.after), default=0) < 0:
            raise InvalidArgument("sizes of pad", expected="two sizes from 0 an axis", found=(self.before, self.after))
        if math.isnan(self.value) or (self.mode != "constant" and self.value != 0.0):
            raise InvalidArgument("value of pad", expected="a number, 0 unless it is constant", found=self.value)

    @property
    def label(self) -> str:
        return self.name if self.mode == "constant" else f"{self.mode}_pad"

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        shape = inputs[0].shape
        if len(shape) != len(self.before):
            raise InvalidArgument(f"axes of {self.label}", expected=str(len(self.before)), found=shape)
        for axis, (size, before, after) in enumerate(zip(shape, self.before, self.after, strict=True)):
            most = {"reflect": size - 1, "circular": size}.get(self.mode)
            if most is not None and max(before, after) > most:
                raise InvalidArgument(
                    f"sizes of {self.label}", expected=f"at most {most} along axis {axis}", found=(before, after)
                )
        return TensorType(tuple(b + size + a for b, size, a in zip(self.before, shape, self.after, strict=True)))

    def with_height(self, inputs: Sequence[TensorType]) -> Op:
        before, after = ((*side[:2], 0, side[2]) for side in (self.before, self.after))
        return dataclasses.replace(self, before=before, after=after)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        if self.mode == "constant":
            pairs = list(zip(self.before, self.after, strict=True))[::-1]
            return F.pad(x, [size for pair in pairs for size in pair], value=self.value)
        for axis, (before, after) in enumerate(zip(self.before, self.after, strict=True)):
            if before or after:
                places = torch.arange(-before, x.shape[axis] + after)
                x = x.index_select(axis, self._sources(places, x.shape[axis]))
        return x

    def _sources(self, places: torch.Tensor, size: int) -> torch.Tensor:
        """The indices of x that places from -before to size + after - 1 have their elements from."""
        if self.mode == "reflect":
            return (size - 1) - ((size - 1) - places.abs()).abs()
        return places.clamp(0, size - 1) if self.mode == "replicate" else places.remainder(size)

    @property
    def zero_sides(self) -> Sides | None:
        """(top, bottom, left, right) if this puts zeros around images and does nothing else; else None."""
        is_zero = self.mode == "constant" and self.value == 0.0 and len(self.before) == 4
        if not is_zero or any((*self.before[:2], *self.after[:2])):
            return None
        return self.before[2], self.after[2], self.before[3], self.after[3]
