"""Weights as codes of 8 or 4 bits, with a scale for each group of inputs of an output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics.bfloat16 import BFLOAT16
from netopt.numerics.fixed_point import FixedPoint
from netopt.numerics.format import Part, PartedFormat, Shape

# What the largest number of a group, in magnitude, is divided by to give a scale, the two ends of the codes first:
# those give back what was encoded before. A negative scale lets the largest number have the code that is farthest from
# 0; beyond the ends the largest is cut off, for the sake of the others.
_DIVISORS = {8: (127.0, -128.0), 4: (7.0, -8.0, 7.5, -8.5, 8.0, -9.0)}
_GROUPS = range(8, 257, 8)
# Numbers that are encoded at once: what is computed on the way stays in the cache.
_PIECE = 2**17


@dataclass(frozen=True)
class Grouped(PartedFormat):
    """value = code x scale, with a scale for each `group` numbers in a row along the last axis, fewer in the last.

    Codes are signed and lie side by side. A scale is a bfloat16 number of any sign, so that every product is exact in
    float32. Of several it is the one with the smallest sum of squared errors, and a code is floor(x / scale + 1/2), or
    the nearest that there is. NaN becomes 0.

    Attributes:
        bits: of a code: 8 or 4.
        group: numbers that share a scale: a multiple of 8, from 8 to 256. Sums of a group's products with codes of 16
            bits fit into 32 bits.
    """

    bits: int
    group: int
    name: ClassVar[str] = "grouped"

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits not in _DIVISORS:
            raise InvalidArgument("bits of a grouped format", expected="4 or 8", found=self.bits)
        if type(self.group) is not int or self.group not in _GROUPS:
            raise InvalidArgument("group of a grouped format", expected="a multiple of 8 up to 256", found=self.group)

    @property
    def is_of_values(self) -> bool:
        return False

    @property
    def codes(self) -> FixedPoint:
        """The format of the codes."""
        return FixedPoint(self.bits, 0)

    def groups(self, numbers: int) -> int:
        """How many groups there are in a row of so many numbers."""
        return -(-numbers // self.group)

    def parts(self, shape: Shape) -> tuple[Part, ...]:
        if not shape:
            raise InvalidArgument("grouped numbers", expected="one axis or more", found=shape)
        scales = (*shape[:-1], self.groups(shape[-1]))
        return (Part("codes", shape, self.codes), Part("scales", scales, BFLOAT16))

    def split(self, numbers: torch.Tensor) -> Sequence[torch.Tensor]:
        shape = tuple(numbers.shape)
        codes = torch.empty(shape, dtype=torch.int8, device=numbers.device)
        scales = torch.empty(self.parts(shape)[1].shape, dtype=torch.bfloat16, device=numbers.device)
        if not numbers.numel():
            return codes, scales
        rows = numbers.reshape(-1, shape[-1]).float().nan_to_num()
        flat_codes, flat_scales = codes.view(rows.shape), scales.view(len(rows), -1)
        step = max(1, _PIECE // shape[-1])
        for start in range(0, len(rows), step):
            piece = slice(start, start + step)
            padding = -shape[-1] % self.group
            grouped = torch.nn.functional.pad(rows[piece], (0, padding)).reshape(len(rows[piece]), -1, self.group)
            found, flat_scales[piece] = self._encode_groups(grouped)
            flat_codes[piece] = found.flatten(1)[:, : shape[-1]].to(torch.int8)
        return codes, scales

    def _encode_groups(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes, in float32, and scales, in bfloat16, of groups along the last axis."""
        tried = self._scales(numbers)
        scales = next(tried)
        codes, errors = self._codes(numbers, scales)
        for number, others in enumerate(tried):
            if number and not errors.any():
                break
            other_codes, other_errors = self._codes(numbers, others)
            is_better = other_errors < errors
            errors = torch.where(is_better, other_errors, errors)
            scales = torch.where(is_better, others, scales)
            codes = torch.where(is_better[..., None], other_codes, codes)
        return codes, scales

    def _scales(self, numbers: torch.Tensor) -> Iterator[torch.Tensor]:
        """The scales to choose from, for each group."""
        low, high = numbers.aminmax(dim=-1)
        largest = torch.where(high >= -low, high, low)
        for divisor in _DIVISORS[self.bits]:
            scale = largest / divisor
            # Of normal numbers, and so that no code stands for more than 2^127.
            size = scale.abs().clamp(2.0**-126, 2.0 ** (128 - self.bits))
            yield BFLOAT16.encode(torch.where(scale < 0, -size, size))

    def _codes(self, numbers: torch.Tensor, scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes of the numbers, and for each group the sum of squared errors, over that of its largest number."""
        scale = scales.float()[..., None]
        steps = numbers / scale
        whole = steps.floor()
        codes = whole.add_(steps - whole >= 0.5).clamp_(self.codes.codes.start, self.codes.codes.stop - 1)
        largest = steps.abs().amax(-1, keepdim=True).clamp(min=1.0)
        return codes, ((steps - codes) / largest).square_().sum(-1)

    def join(self, parts: Sequence[torch.Tensor], shape: Shape) -> torch.Tensor:
        codes, scales = parts
        if not math.prod(shape):
            return torch.empty(shape)
        return codes.float() * scales.float().repeat_interleave(self.group, -1)[..., : shape[-1]]
