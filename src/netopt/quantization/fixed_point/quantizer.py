"""Trainable rounding of a tensor to codes: what a format computes, with a gradient that passes it."""

from __future__ import annotations

import math

import torch
from torch import nn

from netopt.numerics import Affine, CodeFormat, FixedPoint, round_scale


class Quantizer(nn.Module):
    """Stub until the branch of quantizers is merged."""

    step: torch.Tensor

    def __init__(self, bits: int, signed: bool, step: torch.Tensor, kind: str, by_channel: bool) -> None:
        super().__init__()
        self.bits, self.signed, self.kind, self.by_channel, self.enabled = bits, signed, kind, by_channel, True
        self.register_buffer("step", step)

    @classmethod
    def of(cls, format_: CodeFormat, *, learned: bool = False) -> Quantizer:
        step = torch.tensor(format_.steps if format_.is_by_channel else format_.steps[0], dtype=torch.float32)
        kind = "power" if isinstance(format_, FixedPoint) else "real"
        return cls(format_.bits, format_.is_signed, step, kind, format_.is_by_channel)

    @property
    def format(self) -> CodeFormat:
        steps = self.step.reshape(-1).tolist()
        if self.kind == "power":
            fractions = tuple(-round(math.log2(step)) for step in steps)
            return FixedPoint(self.bits, fractions if self.by_channel else fractions[0], self.signed)
        scales = tuple(round_scale(step) for step in steps)
        return Affine(self.bits, scales if self.by_channel else scales[0], 0, self.signed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = 1 << (self.bits - 1)
        low, high = (-half, half - 1) if self.signed else (0, 2 * half - 1)
        step = self.step.to(x.dtype)
        step = step.reshape(-1, *[1] * (x.dim() - 1)) if self.by_channel else step
        codes = x / step
        whole = torch.floor(codes.detach())
        rounded = torch.where(codes.detach() - whole >= 0.5, whole + 1, whole).clamp(low, high)
        inside = (codes.detach() >= low - 0.5) & (codes.detach() <= high + 0.5)
        passed = torch.where(inside, x, x.detach())
        return passed + (rounded * step - passed).detach()
