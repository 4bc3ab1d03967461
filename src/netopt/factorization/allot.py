"""A budget for a whole network, spread over its layers where it costs the least error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from netopt.errors import InvalidArgument
from netopt.factorization.ranks import Budget, Ranks
from netopt.transform.cost import Cost
from netopt.transform.select import Layer


@dataclass(frozen=True)
class Choice:
    """Ranks that a layer may have.

    Attributes:
        ranks: of each mode; None for the layer as it is.
        cost: what it then costs.
        loss: share of its energy that is lost, from 0 to 1.
    """

    ranks: Ranks | None
    cost: Cost
    loss: float


def allot(budget: Budget, layers: Sequence[tuple[Layer, Sequence[Choice]]], network: Cost) -> dict[str, Ranks | None]:
    """For each layer the ranks, or None to leave it whole: least sum of losses for a cost within the budget.

    A multiple-choice knapsack, solved by Lagrange's multiplier: for a price of a multiply-add each layer takes what is
    best for itself; the price is the least with which the budget holds. What is left of the budget is then spent on the
    best exchanges of one choice for another.

    Args:
        budget: as shares of `network`.
        layers: with their choices; the choice to leave it whole is added.
        network: cost of all dense and convolution layers.

    Raises:
        InvalidArgument: the shapes are not known, or the least ranks cost more than the budget.
    """
    by_size = budget.multiply_adds is None
    if not by_size and not any(layer.input_shapes for layer, _ in layers):
        raise InvalidArgument(
            "Budget(multiply_adds=...)", expected="an example, for the shapes", found="none", fix="give example=..."
        )
    table = [
        # What is not called costs no multiply-adds: there is nothing to save.
        [_whole(layer), *(options if by_size or layer.input_shapes else ())]
        for layer, options in layers
    ]
    prices = [[_amount(choice, by_size) for choice in options] for options in table]
    total = network.parameters if by_size else network.multiply_adds
    limit = int(budget.share * total) - (total - sum(row[0] for row in prices))
    least = sum(min(row) for row in prices)
    if least > limit:
        reachable = math.ceil(1000 * (least + total - sum(row[0] for row in prices)) / total) / 1000
        raise InvalidArgument(
            "Budget", expected=f"a share of at least {reachable} with these layers and methods", found=budget.share
        )
    chosen = _within(limit, prices, [[choice.loss for choice in options] for options in table])
    return {layer.name: table[index][chosen[index]].ranks for index, (layer, _) in enumerate(layers)}


def _whole(layer: Layer) -> Choice:
    return Choice(None, Cost.of(layer.module, layer.input_shapes), 0.0)


def _amount(choice: Choice, by_size: bool) -> int:
    return choice.cost.parameters if by_size else choice.cost.multiply_adds


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
