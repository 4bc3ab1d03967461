"""Biases of layers that multiply codes: whole numbers of the step of the sums, so that adding one rounds nothing."""

from __future__ import annotations

import torch

from netopt.numerics import Affine, CodeFormat, FixedPoint

_BITS = (8, 16, 24, 32)


def rounded_bias(bias: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The bias rounded to multiples of the steps, as `bias_format` stores it, with a straight-through gradient.

    Args:
        bias: (outputs,).
        steps: (outputs,), or one for all.
    """
    # In float64, in which one half is added without rounding to all codes that have a format.
    codes = torch.floor(bias.detach().double() / steps.double() + 0.5)
    if bool((codes.abs() >= 2.0 ** (_BITS[-1] - 1)).any()):
        return bias
    return bias + ((codes * steps.double()).to(bias) - bias.detach())


def bias_format(bias: torch.Tensor, x: CodeFormat, weight: CodeFormat) -> CodeFormat | None:
    """The format of the fewest bits that has the bias in multiples of the step of the sums; None where none has.

    Args:
        bias: (outputs,).
        x, weight: the formats of what is multiplied.
    """
    for bits in _BITS:
        format_ = _sum_format(bits, x, weight, len(bias))
        codes = (bias.double() / torch.tensor(format_.steps, dtype=torch.float64) + 0.5).floor()
        if format_.codes.start <= codes.min() and codes.max() < format_.codes.stop:
            return format_
    return None


def _sum_format(bits: int, x: CodeFormat, weight: CodeFormat, outputs: int) -> CodeFormat:
    """Multiples of the step of x times that of each output's weights."""
    steps = weight.steps if weight.is_by_channel else weight.steps * outputs
    if isinstance(x, FixedPoint) and isinstance(weight, FixedPoint):
        fractions = weight.fractions if weight.is_by_channel else weight.fractions * outputs
        return FixedPoint(bits, tuple(x.fractions[0] + fraction for fraction in fractions))
    # A format of sums has scales of as many digits as a product of two has; one of few bits is of the same kind.
    return Affine(max(bits, 24), tuple(x.steps[0] * step for step in steps))
