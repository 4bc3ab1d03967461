"""Rules that choose the rank of a factorization.

rank=64              a number
rank=(48, 32)        a number for each of the two ranks of Tucker
rank=0.25            a fraction of the full rank, rounded to nearest, at least 1
rank=Energy(0.9)     the least rank that keeps this share of the squared singular values
rank=EVBMF()         the rank that Bayesian matrix factorization finds above the noise
rank=Budget(...)     what the whole network may cost, spread over its layers by error
rank=lambda W: 64    a function of the weight
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument, InvalidType
from netopt.factorization.evbmf import evbmf_rank
from netopt.transform.budget import Budget


@dataclass(frozen=True)
class Energy:
    """The least rank whose singular values hold at least `share` of the sum of all squared singular values."""

    share: float

    def __post_init__(self) -> None:
        if not isinstance(self.share, float | int) or isinstance(self.share, bool) or not 0 < self.share <= 1:
            raise InvalidArgument("share of Energy", expected="a number above 0, up to 1", found=self.share)


@dataclass(frozen=True)
class EVBMF:
    """The rank of the empirical variational Bayesian factorization of the weight; where that is 0, 1.

    Source: Nakajima et al., 2013, "Global analytic solution of fully-observed variational Bayesian matrix
    factorization".
    """


@dataclass(frozen=True)
class Allotted:
    """The ranks that were chosen for layers by name; None for a layer that is better left whole."""

    ranks: Mapping[str, tuple[int, ...] | None]


Ranks = tuple[int, ...]
Rank = int | float | Sequence[int] | Energy | EVBMF | Budget | Allotted | Callable[[torch.Tensor], int | Sequence[int]]


def check_rule(rank: object) -> None:
    """Raise unless `rank` is a rule that can be applied to some layer.

    Raises:
        InvalidArgument: a number out of range.
        InvalidType: not a rule.
    """
    if isinstance(rank, Energy | EVBMF | Budget | Allotted):
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
    elif isinstance(rank, list | tuple) and rank and all(type(item) is int for item in rank):
        if min(rank) < 1:
            raise InvalidArgument("rank", expected="at least 1", found=rank)
    elif not callable(rank) or isinstance(rank, type):
        raise InvalidType(
            "rank",
            expected="an int, a fraction, Energy(share), EVBMF(), Budget(...) or a function of W",
            found=repr(rank),
        )


def check_multiple(multiple: object) -> None:
    """Raise unless `multiple` is an integer of at least 1, or None."""
    if multiple is not None and (type(multiple) is not int or multiple < 1):
        raise InvalidArgument("multiple", expected="an integer of at least 1, or None", found=repr(multiple))


def rounded(rank: int, full: int, multiple: int) -> int:
    """The multiple nearest to `rank`, at least one of it, at most `full`.

    Kernels compute output channels in whole vectors: 17 of them take as long as 32. A full rank not above `multiple`
    leaves no choice, and the rank is left as it is; so is a rank that is full.
    """
    if full <= multiple or rank == full:
        return rank
    return min(full, max(1, (rank + multiple // 2) // multiple) * multiple)


def rank_for_fraction(fraction: float, full: int) -> int:
    """The fraction of the full rank, rounded to nearest, at least 1."""
    return max(1, int(fraction * full + 0.5))


def rank_for_energy(share: float, energy: torch.Tensor) -> int:
    """The least rank that keeps `share` of the energy: squared singular values, in descending order."""
    energy = energy.double()
    if energy.sum() == 0:
        return 1
    kept = energy.cumsum(0) / energy.sum()
    # A share of 1 asks for all but rounding: the sum of a float32 spectrum is not known better than its epsilon.
    return min(len(kept), int((kept < share - torch.finfo(torch.float32).eps).sum()) + 1)


def rank_for_evbmf(matrices: Sequence[torch.Tensor], precision: torch.dtype | None = None) -> int:
    """The largest of the ranks of these matrices by `EVBMF`, whose numbers were rounded to a precision; may be 0."""
    return max(evbmf_rank(matrix, precision) for matrix in matrices)


def check_rank(rank: object, full: int, layer: str) -> int:
    """`rank` as an int, if it is an integer from 1 to `full`; else an error."""
    value = as_integer(rank, layer)
    if not 1 <= value <= full:
        raise InvalidArgument(
            "rank",
            expected=f"an integer from 1 to the full rank {full}",
            found=value,
            layer=layer,
            fix="give a fraction such as 0.25, or leave the layer out with a filter",
        )
    return value


def as_integer(rank: object, layer: str) -> int:
    """`rank` as an int, if it is an integer of any type but bool; else InvalidType."""
    try:
        if isinstance(rank, bool):
            raise TypeError
        return operator.index(rank)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise InvalidType("rank", expected="an integer", found=repr(rank), layer=layer) from None
