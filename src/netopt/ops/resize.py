"""Images in another size: by the nearest pixel, or between the four around."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs
from netopt.ops.spatial import Pair

FUNCTIONS = ("nearest", "nearest_exact", "bilinear", "bilinear_corners")


@dataclass(frozen=True)
class Resize(Op):
    """y (batch, channels, *size) = x (batch, channels, height, width) at other points.

    For the output i along an axis of n pixels, all in float32, as PyTorch computes it:
        "nearest"           pixel min(floor(i * step), n - 1)
        "nearest_exact"     pixel min(floor((i + 1/2) * step), n - 1)
        "bilinear"          between the pixels around max(0, (i + 1/2) * step - 1/2)
        "bilinear_corners"  between the pixels around i * step

    Attributes:
        function: one of `FUNCTIONS`.
        size: height and width of the output.
        step: pixels of the input a pixel of the output, along height and width; a float32 number.
    """

    function: str
    size: Pair
    step: tuple[float, float]
    name: ClassVar[str] = "resize"
    layouts = Layouts.IMAGES
    formats = FLOATS
    takes_codes = True

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise InvalidArgument("function of resize", expected=f"one of {', '.join(FUNCTIONS)}", found=self.function)
        if (len(self.size), len(self.step)) != (2, 2) or min(self.size) < 1:
            raise InvalidArgument("size of resize", expected="a height and a width from 1", found=self.size)
        if not all(math.isfinite(s) and s >= 0 and float(np.float32(s)) == s for s in self.step):
            raise InvalidArgument("step of resize", expected="two float32 numbers from 0", found=self.step)

    @property
    def label(self) -> str:
        return f"resize_{self.function}"

    @property
    def is_nearest(self) -> bool:
        """Whether each output is one pixel."""
        return self.function.startswith("nearest")

    @property
    def flushes_denormals(self) -> bool:
        return not self.is_nearest

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        if len(inputs[0].shape) != 4:
            raise InvalidArgument("input of resize", expected="(batch, channels, height, width)", found=inputs[0].shape)
        return TensorType((*inputs[0].shape[:2], *self.size))

    def points(self, axis: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each output along height (0) or width (1) of an input of `size` pixels.

        Returns:
            The pixel below, the pixel above, and the weight of the one above in float32.
        """
        places = np.arange(self.size[axis]).astype(np.float32)
        step, half = np.float32(self.step[axis]), np.float32(0.5)
        if self.function in ("nearest_exact", "bilinear"):
            places = places + half
        places = places * step
        if self.function == "bilinear":
            places = np.maximum(places - half, np.float32(0.0))
        below = np.minimum(np.floor(places).astype(np.int64), size - 1)
        above = np.minimum(below + 1, size - 1)
        weight = np.minimum(places - below.astype(np.float32), np.float32(1.0))
        return torch.from_numpy(below), torch.from_numpy(above), torch.from_numpy(weight)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        y = inputs[0]
        for axis in (1, 0):
            below, above, weight = self.points(axis, y.shape[axis + 2])
            lower = y.index_select(axis + 2, below)
            if self.is_nearest:
                y = lower
                continue
            w = weight.to(y.dtype).reshape((-1,) + (1,) * (1 - axis))
            y = lower * (1.0 - w) + y.index_select(axis + 2, above) * w
        return y
