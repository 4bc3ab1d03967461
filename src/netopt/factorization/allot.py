"""Ranks for all layers of a network together, as a budget chooses them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netopt.factorization.ranks import Allotted, Ranks
from netopt.transform.budget import Budget
from netopt.transform.candidate import Candidate
from netopt.transform.cost import Cost
from netopt.transform.technique import Proposal


@dataclass(frozen=True)
class OfRanks(Proposal):
    """A proposal of a factorization.

    Attributes:
        ranks: of each mode.
    """

    ranks: Ranks = ()


def allotted(budget: Budget, candidates: Iterable[Candidate], network: Cost) -> Allotted:
    """The ranks that a budget chooses for layers; each is a group of one.

    Args:
        budget: as shares of `network`.
        candidates: their options are those of `Factorization.propose`.
        network: cost of all dense and convolution layers.

    Raises:
        InvalidArgument: see `Budget.prepare`.
    """
    candidates = list(candidates)
    spread = budget.prepare(candidates, network)
    ranks: dict[str, Ranks | None] = {}
    for candidate in candidates:
        chosen = spread.choose(candidate).chosen
        proposal = None if chosen is None else chosen.proposal
        assert proposal is None or isinstance(proposal, OfRanks)
        ranks[candidate.group.layer.name] = None if proposal is None else proposal.ranks
    return Allotted(ranks)
