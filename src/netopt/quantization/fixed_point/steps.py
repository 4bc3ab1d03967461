"""From one code to the next: steps that are powers of two, or real numbers of few digits; and the formats of them."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import Affine, CodeFormat, FixedPoint

# Steps that are powers of two, and scales of 8 significant bits.
Kind = Literal["power", "real"]

# The exponents that the formats let steps have.
EXPONENTS: dict[Kind, range] = {"power": range(-125, 113), "real": range(-112, 113)}
_DIGITS = 8


def make_format(steps: torch.Tensor, bits: int, signed: bool, kind: Kind, zero_point: int = 0) -> CodeFormat:
    """The format of codes with these steps.

    Args:
        steps: one, of shape (), or (channels,): powers of two, or numbers of 8 significant bits; see `round_steps`.
        bits: of a code.
        signed: whether there are codes below 0.
        kind: which numbers the steps are.
        zero_point: the code of 0; with powers of two it is 0.

    Raises:
        InvalidArgument: there are no such codes.
    """
    check_kind(kind)
    values = tuple(steps.detach().double().reshape(-1).tolist())
    if kind == "real":
        return Affine(bits, values if steps.dim() else values[0], zero_point, signed)
    fractions = tuple(1 - math.frexp(value)[1] for value in values)
    return FixedPoint(bits, fractions if steps.dim() else fractions[0], signed)


def power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """2^exponent in float64, exactly: functions of exponents and powers are not."""
    return ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)


def round_steps(steps: torch.Tensor, kind: Kind, *, up: bool = False) -> torch.Tensor:
    """The nearest steps of a kind, in float64; of powers of two the nearest in the logarithm. 0 becomes the least.

    Args:
        steps: of any shape, at least 0.
        kind: which numbers they are to be.
        up: give the least that is not smaller instead.
    """
    low, high = EXPONENTS[kind].start, EXPONENTS[kind].stop - 1
    mantissa, exponent = torch.frexp(steps.double().clamp(2.0**low, 2.0**high))
    if kind == "power":
        # The mantissa is from 1/2 to 1.
        is_upper = mantissa > 0.5 if up else mantissa > math.sqrt(0.5)
        return power_of_two(exponent - 1 + is_upper.to(exponent.dtype))
    digits = mantissa * 2**_DIGITS
    rounded: torch.Tensor = (digits.ceil() if up else digits.round()) * power_of_two(exponent - _DIGITS)
    return rounded


def check_kind(kind: object) -> None:
    """Raise InvalidArgument unless it is a kind of steps."""
    if kind not in get_args(Kind):
        raise InvalidArgument("kind of steps", expected='"power" or "real"', found=repr(kind))
