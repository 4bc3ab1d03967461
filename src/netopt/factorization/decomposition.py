"""What all factorizations have in common: one layer's weight, its ranks, what they cost, and what they lose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from netopt.console import doing
from netopt.errors import InvalidArgument, InvalidType, name_of_layer
from netopt.factorization.allot import OfRanks, allotted
from netopt.factorization.ranks import (
    EVBMF,
    Allotted,
    Energy,
    Rank,
    Ranks,
    as_integer,
    check_multiple,
    check_rank,
    check_rule,
    rank_for_energy,
    rank_for_evbmf,
    rank_for_fraction,
    rounded,
)
from netopt.transform.budget import Budget
from netopt.transform.candidate import Candidate
from netopt.transform.cost import Cost
from netopt.transform.group import Group
from netopt.transform.select import Layer
from netopt.transform.technique import Keep, Proposal, Technique, inherit


class Decomposition(ABC):
    """One layer that may be decomposed: a weight, and the ways to cut it.

    A method has one rank or more, called modes; Tucker has two. A mode whose rank is full is not cut.
    """

    def __init__(self, layer: Layer, weight: torch.Tensor) -> None:
        """Hold the layer and a copy of its weight, float32 or float64, for the user's functions."""
        self.layer, self.weight = layer, weight

    @property
    @abstractmethod
    def full(self) -> Ranks:
        """The full rank of each mode."""

    @abstractmethod
    def energies(self) -> list[torch.Tensor]:
        """For each mode the squared singular values, in descending order: what is lost when a rank is cut there."""

    @abstractmethod
    def unfoldings(self) -> list[list[torch.Tensor]]:
        """For each mode the matrices that the rule EVBMF looks at."""

    @abstractmethod
    def cost(self, ranks: Ranks) -> Cost:
        """Parameters without biases, and multiply-adds, of the replacement."""

    @abstractmethod
    def build(self, ranks: Ranks) -> nn.Module:
        """The replacement."""

    @abstractmethod
    def error(self, module: nn.Module) -> float:
        """Of a replacement: what `netopt.transform.technique.Proposal.error` asks for."""

    def whole_cost(self, ranks: Ranks) -> Cost:
        """`cost` with the bias."""
        return self.cost(ranks) + Cost(self.bias_parameters, 0)

    def loss(self, ranks: Ranks) -> float:
        """The share of the energy that these ranks lose, about: a bound where modes are cut together."""
        lost = [
            float(energy[rank:].sum() / energy.sum()) if energy.sum() > 0 else 0.0
            for energy, rank in zip(self.energies(), ranks, strict=True)
        ]
        return min(1.0, sum(lost))

    def grid(self, multiple: int) -> Sequence[Ranks]:
        """The ranks that a budget chooses from: multiples; halves of them, or eighths, where the full rank is small."""
        combinations: list[Ranks] = [()]
        for full in self.full:
            step = max(1, full // 8)
            if full > multiple:
                step = multiple if full >= 4 * multiple else max(1, multiple // 2)
            # A large layer's grid is thinned, so that a mode has about twenty ranks at most.
            step *= max(1, full // step // 20)
            combinations = [(*ranks, rank) for ranks in combinations for rank in (*range(step, full, step), full)]
        return combinations

    def at_energy(self, share: float) -> Ranks:
        """The least rank of each mode that keeps this share of its energy."""
        return tuple(rank_for_energy(share, energy) for energy in self.energies())

    def at_number(self, rank: int) -> Ranks:
        """A given number as the rank of each mode."""
        return tuple(check_rank(rank, full, self.layer.name) for full in self.full)

    @property
    def precision(self) -> torch.dtype:
        """The coarsest type that holds the layer's weight exactly: also where the network was stored in it before."""
        weight = self.layer.module.weight
        assert isinstance(weight, torch.Tensor)
        narrower = (torch.bfloat16, torch.float16, torch.float32)
        return next(
            (dtype for dtype in narrower if torch.equal(weight.to(dtype).to(weight.dtype), weight)), weight.dtype
        )

    @property
    def parameters_of_layer(self) -> int:
        """All parameters of the layer as it is."""
        return sum(parameter.numel() for parameter in self.layer.module.parameters())

    @property
    def bias_parameters(self) -> int:
        """Of the layer, and of what replaces it."""
        return self.layer.bias.numel() if isinstance(self.layer.bias, torch.Tensor) else 0


@dataclass(frozen=True, kw_only=True)
class Factorization(Technique):
    """A technique that cuts ranks.

    Attributes:
        rank: see `netopt.factorization.ranks`.
        multiple: ranks that a rule finds are rounded to the nearest multiple; numbers and functions are taken as given.
            None: the vectors of the CPU that the network is for, see `Layer.lanes`.
        select: which layers; None for all that are handled.
    """

    rank: Rank
    multiple: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.rank)
        check_multiple(self.multiple)

    @abstractmethod
    def decomposition(self, layer: Layer) -> Decomposition | Keep:
        """The layer as this technique decomposes it, or why it does not."""

    def multiple_for(self, layer: Layer) -> int:
        """What ranks of a layer are rounded to a multiple of."""
        return layer.lanes if self.multiple is None else self.multiple

    def replace(self, layer: Layer) -> nn.Module | Proposal | Keep:
        found = self.decomposition(layer)
        if isinstance(found, Keep):
            return found
        ranks, note = self._ranks(found)
        if ranks is None:
            return Keep(note)
        return Proposal(found.whole_cost(ranks).parameters, partial(found.build, ranks), note, found.error)

    def propose(self, group: Group) -> Sequence[nn.Module | Proposal] | Keep:
        """With a budget, a proposal for each of the layer's choices; else one, of the ranks of the rule."""
        if not isinstance(self.rank, Budget):
            return super().propose(group)
        return [self._at(group.layer, choice) for choice in self.choices(group.layer)] or Keep("no rank saves anything")

    def prepare(self, layers: Sequence[Layer], network: Cost) -> Technique:
        if not isinstance(self.rank, Budget):
            return self
        return replace(self, rank=allotted(self.rank, map(self.candidate, layers), network))

    def candidate(self, layer: Layer) -> Candidate:
        """The layer with all that this technique proposes for it."""
        group, before = Group((layer,)), Cost.of(layer.module, layer.input_shapes)
        with doing(f"ranks for {name_of_layer(layer.name)}"):
            found = Candidate.of(self, group, before)
        return Candidate(group, before) if isinstance(found, Keep) else found

    def _at(self, layer: Layer, choice: Choice) -> OfRanks:
        """A proposal of given ranks. It holds no decomposition, so that those of a whole network need no memory."""

        def found() -> Decomposition:
            answer = self.decomposition(layer)
            assert isinstance(answer, Decomposition)
            return answer

        return OfRanks(
            choice.cost.parameters,
            lambda: found().build(choice.ranks),
            error=lambda module: found().error(module),
            multiply_adds=choice.cost.multiply_adds,
            loss=choice.loss,
            ranks=choice.ranks,
        )

    def choices(self, layer: Layer) -> list[Choice]:
        """What ranks the layer may have, what they cost and lose; none if it cannot be decomposed."""
        found = self.decomposition(layer)
        return [] if isinstance(found, Keep) else choices(found, self.multiple_for(layer))

    def _ranks(self, found: Decomposition) -> tuple[Ranks | None, str]:
        """The ranks of a layer, and how they came about."""
        rule, name = self.rank, found.layer.name
        if isinstance(rule, Budget):
            raise InvalidArgument("Budget", expected="a whole network", found="a layer alone", layer=name)
        if isinstance(rule, Allotted):
            ranks = rule.ranks.get(name)
            return ranks, "" if ranks is not None else "the budget leaves it whole"
        if isinstance(rule, int):
            return found.at_number(rule), ""
        if callable(rule) or isinstance(rule, list | tuple):
            return _given(rule(found.weight.clone()) if callable(rule) else rule, found), ""
        if isinstance(rule, float):
            wanted = tuple(rank_for_fraction(rule, full) for full in found.full)
        elif isinstance(rule, Energy):
            wanted = found.at_energy(rule.share)
        else:
            assert isinstance(rule, EVBMF)
            wanted = tuple(rank_for_evbmf(matrices, found.precision) for matrices in found.unfoldings())
        return _rounded(wanted, found.full, self.multiple_for(found.layer), "EVBMF" if isinstance(rule, EVBMF) else "")


@dataclass(frozen=True)
class Choice:
    """Ranks that a layer may have.

    Attributes:
        ranks: of each mode.
        cost: what it then costs.
        loss: share of its energy that is lost, from 0 to 1.
    """

    ranks: Ranks
    cost: Cost
    loss: float


Replacement = TypeVar("Replacement", bound=nn.Module)


def inherit_with_bias(replacement: Replacement, original: nn.Module) -> Replacement:
    """As `inherit`, of a replacement that has the original's own bias, which keeps its requires_grad."""
    bias = original.bias if isinstance(original.bias, nn.Parameter) else None
    trains = bias is not None and bias.requires_grad
    inherit(replacement, original)
    if bias is not None:
        bias.requires_grad_(trains)
    return replacement


def choices(found: Decomposition, multiple: int) -> list[Choice]:
    """What a budget chooses from: ranks that save parameters, with their cost and loss."""
    result = []
    for ranks in found.grid(multiple):
        cost = found.whole_cost(ranks)
        if cost.parameters < found.parameters_of_layer:
            result.append(Choice(ranks, cost, found.loss(ranks)))
    return result


def _given(answer: Any, found: Decomposition) -> Ranks:
    """Ranks as the user gives them: one number for all modes, or a number for each."""
    name = found.layer.name
    if not isinstance(answer, list | tuple):
        return found.at_number(as_integer(answer, name))
    if len(answer) != len(found.full):
        modes = len(found.full)
        raise InvalidType(
            "rank",
            expected="one integer" if modes == 1 else f"an integer, or {modes} of them",
            found=repr(answer),
            layer=name,
            fix="give ranks for outputs and inputs to Tucker alone, as convolution=Tucker(rank=(16, 16))",
        )
    return tuple(check_rank(rank, full, name) for rank, full in zip(answer, found.full, strict=True))


def _rounded(wanted: Ranks, full: Ranks, multiple: int, rule: str) -> tuple[Ranks, str]:
    ranks = tuple(rounded(max(1, rank), most, multiple) for rank, most in zip(wanted, full, strict=True))
    found = " x ".join(map(str, wanted))
    if rule or ranks != wanted:
        change = "" if ranks == wanted else f" -> {' x '.join(map(str, ranks))}"
        return ranks, f"{rule + ' ' if rule else ''}rank {found}{change}"
    return ranks, ""
