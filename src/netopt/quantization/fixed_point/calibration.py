"""Stub until the branch of quantizers is merged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from netopt.numerics import Affine, CodeFormat, FixedPoint, round_scale


class Observer:
    def __init__(self) -> None:
        self.min, self.max, self.samples = math.inf, -math.inf, []

    def update(self, x: torch.Tensor) -> None:
        self.min, self.max = min(self.min, float(x.min())), max(self.max, float(x.max()))
        flat = x.detach().reshape(-1)
        self.samples.append(flat[:: max(1, flat.numel() // 20000)].clone())


@dataclass(frozen=True)
class Method:
    def place(self, observer: Observer, bits: int, signed: bool, kind: str) -> CodeFormat:
        x = torch.cat(observer.samples)
        return place_weight(x[None], bits, by_channel=False, kind=kind, signed=signed)


@dataclass(frozen=True)
class MSE(Method):
    pass


def place_weight(w, bits, *, by_channel, method=None, kind="power", signed=True):
    w = w.detach().double()
    rows = w.reshape(w.shape[0], -1) if by_channel else w.reshape(1, -1)
    half = 1 << (bits - 1)
    low, high = (-half, half - 1) if signed else (0, 2 * half - 1)
    most = rows.abs().amax(1).clamp_min(1e-30)
    base = torch.ceil(torch.log2(most / high))
    best, chosen = None, None
    candidates = (
        [base - k for k in range(-1, 4)]
        if kind == "power"
        else [torch.log2(most / high) - k / 16 for k in range(-2, 24)]
    )
    for c in candidates:
        step = (2.0**c)[:, None]
        if kind == "real":
            step = torch.tensor([round_scale(float(s)) for s in step[:, 0]], dtype=torch.float64)[:, None]
        q = torch.floor(rows / step + 0.5).clamp(low, high) * step
        err = (q - rows).square().sum(1)
        if best is None:
            best, chosen = err, step[:, 0]
        else:
            chosen = torch.where(err < best, step[:, 0], chosen)
            best = torch.minimum(err, best)
    steps = chosen.tolist()
    if kind == "power":
        f = tuple(min(100, max(-100, -round(math.log2(s)))) for s in steps)
        return FixedPoint(bits, f if by_channel else f[0], signed)
    return Affine(bits, tuple(steps) if by_channel else steps[0], 0, signed)
