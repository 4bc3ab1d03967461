"""Rules that choose the rank of a factorization.

SVD(rank=64)              a number
SVD(rank=0.25)            a fraction of the full rank min(m, n), rounded to nearest, at least 1
SVD(rank=Energy(0.9))     the least rank that keeps this share of the squared singular values
SVD(rank=lambda W: 64)    a function of the weight matrix
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument, InvalidType


@dataclass(frozen=True)
class Energy:
    """The least rank whose singular values hold at least `share` of the sum of all squared singular values."""

    share: float

    def __post_init__(self) -> None:
        if not isinstance(self.share, float | int) or isinstance(self.share, bool) or not 0 < self.share <= 1:
            raise InvalidArgument("share of Energy", expected="a number above 0, up to 1", found=self.share)


Rank = int | float | Energy | Callable[[torch.Tensor], int]


def check_rule(rank: object) -> None:
    """Raise unless `rank` is a rule that can be applied to some matrix.

    Raises:
        InvalidArgument: a number out of range.
        InvalidType: not a rule.
    """
    if isinstance(rank, Energy):
        return
    if isinstance(rank, float):
        if not 0 < rank <= 1:
            raise InvalidArgument(
                "rank",
                expected="as a fraction, a number above 0, up to 1",
                found=rank,
                fix="give a whole rank as an int",
            )
    elif isinstance(rank, int) and not isinstance(rank, bool):
        if rank < 1:
            raise InvalidArgument("rank", expected="at least 1", found=rank)
    elif not callable(rank) or isinstance(rank, type):
        raise InvalidType("rank", expected="an int, a fraction, Energy(share) or a function of W", found=repr(rank))


def resolve_rank(rule: Rank, weight: torch.Tensor, spectrum: torch.Tensor | None, layer: str) -> int:
    """The rank that a rule gives for `weight` (m, n).

    Args:
        rule: see the module.
        weight: handed to a function; not changed.
        spectrum: all singular values, in descending order; needed for Energy alone.
        layer: qualified name, for errors.

    Raises:
        InvalidArgument: the rank is not from 1 to min(m, n).
        InvalidType: a function returns something that is no integer.
    """
    full = min(weight.shape)
    if isinstance(rule, Energy):
        assert spectrum is not None
        return _rank_for_energy(rule.share, spectrum)
    if isinstance(rule, float):
        return max(1, int(rule * full + 0.5))
    return check_rank(rule if isinstance(rule, int) else rule(weight.clone()), full, layer)


def check_rank(rank: object, full: int, layer: str) -> int:
    """`rank` as an int, if it is an integer from 1 to `full`; else an error."""
    try:
        if isinstance(rank, bool):
            raise TypeError
        value = operator.index(rank)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise InvalidType("rank", expected="an integer", found=repr(rank), layer=layer) from None
    if not 1 <= value <= full:
        raise InvalidArgument(
            "rank",
            expected=f"an integer from 1 to min(m, n) = {full}",
            found=value,
            layer=layer,
            fix="give a fraction such as 0.25, or leave the layer out with a filter",
        )
    return value


def _rank_for_energy(share: float, spectrum: torch.Tensor) -> int:
    energy = spectrum.double().square()
    if energy.sum() == 0:
        return 1
    kept = energy.cumsum(0) / energy.sum()
    # A share of 1 asks for all but rounding: the sum of a float32 spectrum is not known better than its epsilon.
    return min(len(kept), int((kept < share - torch.finfo(torch.float32).eps).sum()) + 1)
