"""What tests of placing formats share: observers of numbers, the exact error of a format, and all methods."""

from __future__ import annotations

import torch

from netopt.numerics import CodeFormat, FixedPoint
from netopt.quantization.fixed_point.calibration import KL, MSE, SQNR, Method, MinMax, Observer, Percentile

METHODS: list[Method] = [MinMax(), MinMax(moving=True), Percentile(), Percentile(50.0), MSE(), KL(), SQNR()]


def seen(*batches: torch.Tensor) -> Observer:
    observer = Observer()
    for batch in batches:
        observer.update(batch)
    return observer


def error(x: torch.Tensor, format_: CodeFormat) -> float:
    return (format_.decode(format_.encode(x), torch.float64) - x.double()).square().sum().item()


def positions(bits: int, signed: bool) -> list[FixedPoint]:
    return [FixedPoint(bits, n, signed) for n in range(-30, 60)]
