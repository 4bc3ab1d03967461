"""A budget for a whole network, spread over its layers where it costs the least error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netopt.errors import InvalidArgument
from netopt.transform.candidate import Candidate, Option
from netopt.transform.cost import Cost
from netopt.transform.policy import Decision, Policy


@dataclass(frozen=True, kw_only=True)
class Budget(Policy):
    """What the whole network may cost, as shares of what it costs: the proposals with the least sum of losses for that.

    As the rank of factorizations, the ranks with the least sum of errors. The cost of layers that are not replaced
    counts, too.

    A multiple-choice knapsack, solved by Lagrange's multiplier: for a price of a multiply-add each layer takes what is
    best for itself; the price is the least with which the budget holds. What is left of the budget is then spent on the
    best exchanges of one choice for another.

    Attributes:
        multiply_adds: share of the multiply-adds of one run, above 0, below 1; needs an example. None for no bound.
        parameters: share of the parameters of dense and convolution layers; exactly one of both is given.
    """

    multiply_adds: float | None = None
    parameters: float | None = None

    def __post_init__(self) -> None:
        if (self.multiply_adds is None) == (self.parameters is None):
            raise InvalidArgument(
                "Budget", expected="multiply_adds or parameters", found="neither" if self.parameters is None else "both"
            )
        if not isinstance(self.share, float) or not 0 < self.share < 1:
            raise InvalidArgument("share of Budget", expected="a number above 0, below 1", found=self.share)

    @property
    def share(self) -> float:
        """Of what the network costs."""
        share = self.multiply_adds if self.parameters is None else self.parameters
        assert share is not None
        return share

    def prepare(self, candidates: Iterable[Candidate], network: Cost) -> Spread:
        """What is chosen for each candidate, which may also be to leave its layers whole.

        Raises:
            InvalidArgument: the shapes are not known, the least proposals cost more than the budget, or one does not
                say what it costs and loses.
        """
        by_size, rows = self.multiply_adds is None, [_Row.of(candidate, self) for candidate in candidates]
        if not by_size and not any(row.is_called for row in rows):
            raise InvalidArgument(
                "Budget(multiply_adds=...)", expected="an example, for the shapes", found="none", fix="give example=..."
            )
        total = network.parameters if by_size else network.multiply_adds
        outside = total - sum(row.prices[0] for row in rows)
        limit = int(self.share * total) - outside
        least = sum(min(row.prices) for row in rows)
        if least > limit:
            reachable = math.ceil(1000 * (least + outside) / total) / 1000
            raise InvalidArgument(
                "Budget", expected=f"a share of at least {reachable} with these layers and methods", found=self.share
            )
        chosen = _within(limit, [row.prices for row in rows], [row.losses for row in rows])
        # The first choice of a row is to leave the layers whole.
        return Spread({row.names: index - 1 if index else None for row, index in zip(rows, chosen, strict=True)})

    def choose(self, candidate: Candidate) -> Decision:
        names = ", ".join(candidate.group.names)
        raise InvalidArgument("Budget", expected="a whole network, in `prepare`", found=f"'{names}' alone")

    def price_of(self, option: Option, names: tuple[str, ...]) -> int:
        """What an option takes of the budget.

        Raises:
            InvalidArgument: its proposal does not say so.
        """
        proposal = option.proposal
        price = proposal.parameters if self.multiply_adds is None else proposal.multiply_adds
        if price is None or proposal.loss is None:
            what = "multiply-adds" if price is None else "loss"
            found = f"one for '{', '.join(names)}' without"
            fix = "give a factorization the budget as its rank, such as SVD(rank=Budget(...))"
            raise InvalidArgument("Budget", expected=f"proposals that say their {what}", found=found, fix=fix)
        return price


@dataclass(frozen=True)
class Spread(Policy):
    """A budget that is spread over the layers of a network.

    Attributes:
        chosen: by the names of the layers of each group, the place of the chosen option; None to leave them whole.
    """

    chosen: Mapping[tuple[str, ...], int | None]

    def choose(self, candidate: Candidate) -> Decision:
        index = self.chosen.get(candidate.group.names)
        if index is None:
            return Decision(chosen=None, reason="the budget leaves it whole")
        return Decision(chosen=candidate.options[index])


@dataclass(frozen=True)
class _Row:
    """What may become of a group: prices and losses, first those of its layers as they are."""

    names: tuple[str, ...]
    is_called: bool
    prices: list[int]
    losses: list[float]

    @classmethod
    def of(cls, candidate: Candidate, budget: Budget) -> _Row:
        names, by_size = candidate.group.names, budget.multiply_adds is None
        is_called = any(layer.input_shapes for layer in candidate.group.layers)
        # What is not called costs no multiply-adds: there is nothing to save.
        options = candidate.options if by_size or is_called else ()
        whole = candidate.before.parameters if by_size else candidate.before.multiply_adds
        prices = [whole, *(budget.price_of(option, names) for option in options)]
        return cls(names, is_called, prices, [0.0, *(option.proposal.loss or 0.0 for option in options)])


def _within(limit: int, prices: list[list[int]], losses: list[list[float]]) -> list[int]:
    """For each row the index of its choice."""

    def best(rate: float) -> list[int]:
        return [
            min(range(len(row)), key=lambda i, row=row, loss=loss: (loss[i] + rate * row[i], row[i]))  # type: ignore[misc]
            for row, loss in zip(prices, losses, strict=True)
        ]

    def spent(chosen: list[int]) -> int:
        return sum(row[i] for row, i in zip(prices, chosen, strict=True))

    low, high = 0.0, 1.0
    if spent(best(0.0)) <= limit:
        return best(0.0)
    while spent(best(high)) > limit:
        high *= 4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if spent(best(middle)) <= limit else (middle, high)
    chosen = best(high)
    return _improved(chosen, limit - spent(chosen), prices, losses)


def _improved(chosen: list[int], left: int, prices: list[list[int]], losses: list[list[float]]) -> list[int]:
    """Exchange choices for better ones as long as what is left pays for one, the most gain for its price first."""
    while True:
        best: tuple[float, int, int] | None = None
        for row, current in enumerate(chosen):
            for option, loss in enumerate(losses[row]):
                gain, price = losses[row][current] - loss, prices[row][option] - prices[row][current]
                if gain > 0 and price <= left and (best is None or gain / max(price, 1) > best[0]):
                    best = (gain / max(price, 1), row, option)
        if best is None:
            return chosen
        _, row, option = best
        left -= prices[row][option] - prices[row][chosen[row]]
        chosen = [option if index == row else value for index, value in enumerate(chosen)]
