"""From what was seen of numbers to the format that stores them: of a value, a weight; and how many bits are needed."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import CodeFormat
from netopt.quantization.fixed_point.methods import KL, MSE, SQNR, Method, MinMax, Percentile
from netopt.quantization.fixed_point.observer import Observer
from netopt.quantization.fixed_point.steps import Kind, check_kind, make_format, round_steps

__all__ = [
    "KL",
    "MSE",
    "SQNR",
    "Kind",
    "Method",
    "MinMax",
    "Observer",
    "Percentile",
    "choose_bits",
    "choose_signed",
    "place_weight",
]


def choose_signed(observer: Observer) -> bool:
    """Whether codes below 0 are needed: without them, those above are twice as fine."""
    return observer.count > 0 and observer.min < 0


def place_weight(
    weight: torch.Tensor,
    bits: int = 8,
    *,
    by_channel: bool = True,
    method: Method | None = None,
    kind: Kind = "power",
    least: torch.Tensor | None = None,
) -> CodeFormat:
    """The format of signed codes for a weight. A channel of zeros gets one that has numbers up to 1.

    Args:
        weight: (outputs, ...).
        bits: of a code.
        by_channel: a step for each output, in place of one for all.
        method: `MSE()` if not given, with the exact errors; then no histogram is made.
        kind: "power": steps are powers of two; "real": numbers of 8 significant bits.
        least: (outputs,), or () for one step: no step is smaller, so that biases fit into multiples of the sums' steps.

    Raises:
        InvalidArgument: the weight is empty, or not finite, or there are no such codes.
    """
    check_kind(kind)
    codes = make_format(torch.ones(()), bits, True, kind).codes
    if not weight.numel() or (by_channel and not weight.dim()):
        raise InvalidArgument("weight", expected="(outputs, ...)", found=tuple(weight.shape))
    if not bool(weight.isfinite().all()):
        raise InvalidArgument("weight", expected="finite numbers", found="infinity or NaN")
    rows = weight.detach().reshape(len(weight) if by_channel else 1, -1)
    rows = rows if rows.dtype == torch.float64 else rows.float()
    steps = (MSE() if method is None else method).row_steps(rows, codes, kind)
    if least is not None:
        steps = torch.maximum(steps, round_steps(least, kind, up=True).reshape(-1))
    return make_format(steps if by_channel else steps[0], bits, True, kind)


def choose_bits(
    observers: Mapping[str, Observer],
    target: float,
    *,
    sizes: Mapping[str, int] | None = None,
    method: Method | None = None,
    kind: Kind = "power",
) -> dict[str, int]:
    """8 or 16 bits for each tensor, so that the network's ratio of signal to noise is at least `target`.

    The noise of a network's output, in proportion to the signal, is about the sum of that of its weights and values:
    1 / SQNR = sum of 1 / SQNR_i. Those get 16 bits first whose noise is the largest for their size. Where even 16 bits
    for all are too few, all have 16.

    Source: Lin et al., 1511.06393, equations 4 to 9.

    Args:
        observers: what was seen of each tensor, by name.
        target: in dB.
        sizes: how many numbers each tensor has to be stored; 1 each if not given.
        method: how steps are found; `MSE()` if not given.
        kind: of the steps.
    """
    method = MSE() if method is None else method
    noise: dict[int, dict[str, float]] = {
        bits: {name: _noise(observer, method, bits, kind) for name, observer in observers.items()} for bits in (8, 16)
    }
    gains = {name: noise[8][name] - noise[16][name] for name in observers}
    order = sorted(observers, key=lambda name: -gains[name] / (1 if sizes is None else sizes[name]))
    chosen = dict.fromkeys(observers, 8)
    for name in order:
        if sum(noise[bits][other] for other, bits in chosen.items()) <= 10.0 ** (-target / 10.0):
            break
        chosen[name] = 16
    return chosen


def _noise(observer: Observer, method: Method, bits: int, kind: Kind) -> float:
    """Noise in proportion to the signal."""
    signed = choose_signed(observer) or bits == 16
    return float(10.0 ** (-observer.sqnr(method.place(observer, bits, signed, kind)) / 10.0))
