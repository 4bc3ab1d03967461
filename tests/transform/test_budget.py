"""Budgets, against all combinations of choices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from netopt import Cost, InvalidArgument, Layer, Proposal, Technique
from netopt.transform.budget import Budget
from netopt.transform.candidate import Candidate
from netopt.transform.group import Group


def best_of_all(limit: int, rows: list[list[tuple[int, float]]]) -> float:
    """Least sum of losses of any combination within the limit."""
    sums = [
        (sum(price for price, _ in combination), sum(loss for _, loss in combination))
        for combination in itertools.product(*rows)
    ]
    return min(loss for price, loss in sums if price <= limit)


@dataclass(frozen=True, kw_only=True)
class Offers(Technique):
    """Proposals of these prices and losses; their note is their number, from 1."""

    options: Sequence[tuple[int, float]]
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def propose(self, group: Group) -> list[Proposal]:
        return [
            Proposal(price, nn.Identity, str(number), multiply_adds=price, loss=loss)
            for number, (price, loss) in enumerate(self.options, 1)
        ]


def layers_for(rows: list[list[tuple[int, float]]]) -> list[Candidate]:
    """Layers without bias of the size of the first, whole, choice, with the others as proposals."""
    candidates = []
    for index, ((whole, _), *options) in enumerate(rows):
        layer = Layer(str(index), nn.Linear(whole, 1, bias=False, device="meta"), False, False)
        found = Candidate.of(Offers(options=options), Group((layer,)), Cost.of(layer.module))
        assert isinstance(found, Candidate)
        candidates.append(found)
    return candidates


def allot(budget: Budget, candidates: list[Candidate], network: Cost) -> dict[str, tuple[int] | None]:
    """For each layer the number of what is chosen; None to leave it whole."""
    policy = budget.prepare(candidates, network)
    chosen = {candidate.group.layer.name: policy.choose(candidate).chosen for candidate in candidates}
    return {name: option and (int(option.proposal.note),) for name, option in chosen.items()}


@st.composite
def tables(draw: st.DrawFn) -> list[list[tuple[int, float]]]:
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        whole = draw(st.integers(20, 200))
        options = draw(st.lists(st.tuples(st.integers(1, whole - 1), st.floats(0.0, 1.0)), min_size=1, max_size=5))
        rows.append([(whole, 0.0), *options])
    return rows


@settings(max_examples=150, derandomize=True, deadline=None)
@given(rows=tables(), share=st.floats(0.05, 0.95))
def test_within_the_budget_and_near_the_best(rows: list[list[tuple[int, float]]], share: float) -> None:
    total = sum(row[0][0] for row in rows)
    limit = int(share * total)
    layers = layers_for(rows)
    if sum(min(price for price, _ in row) for row in rows) > limit:
        with pytest.raises(InvalidArgument, match="Budget: expected a share of at least"):
            allot(Budget(parameters=share), layers, Cost(total, total))
        return
    ranks = allot(Budget(parameters=share), layers, Cost(total, total))
    taken = [row[0 if found is None else found[0]] for row, found in zip(rows, ranks.values(), strict=True)]
    assert sum(price for price, _ in taken) <= limit
    # Lagrange's multiplier misses the best by less than the largest loss of one layer.
    best = best_of_all(limit, rows)
    assert best - 1e-12 <= sum(loss for _, loss in taken) <= best + max(loss for row in rows for _, loss in row)


def test_convex_losses_are_allotted_best() -> None:
    """Where each parameter saved costs more than the last, the multiplier and the exchanges find the best of all."""
    rows = [
        [(100, 0.0), *((price, scale * (1 - price / 100) ** 2) for price in range(10, 100, 10))]
        for scale in (1.0, 0.3, 0.05)
    ]
    for share in (0.2, 0.4, 0.5, 0.75, 0.9):
        ranks = allot(Budget(parameters=share), layers_for(rows), Cost(300, 300))
        taken = [row[0 if found is None else found[0]] for row, found in zip(rows, ranks.values(), strict=True)]
        assert sum(price for price, _ in taken) <= share * 300
        assert sum(loss for _, loss in taken) == pytest.approx(best_of_all(int(share * 300), rows), abs=1e-9)


def test_what_is_left_of_the_budget_is_spent() -> None:
    """One price for all jumps from 60 to 140, and leaves 35 of 95: these pay for the first layer's 40."""
    rows = [[(100, 0.0), (40, 0.1), (30, 0.5)], [(100, 0.0), (30, 0.9)]]
    ranks = allot(Budget(parameters=0.475), layers_for(rows), Cost(200, 200))
    assert ranks == {"0": (1,), "1": (1,)}


def test_only_as_much_is_cut_as_the_budget_asks_for() -> None:
    rows = [[(10, 0.0), (9, 0.5)], [(10, 0.0), (10, 0.1)]]
    assert allot(Budget(parameters=0.999999), layers_for(rows), Cost(20, 20)) == {"0": (1,), "1": None}
    rows[0].append((10, 0.0))
    assert allot(Budget(parameters=0.95), layers_for(rows), Cost(20, 20)) == {"0": (1,), "1": None}


def test_the_cost_of_other_layers_counts() -> None:
    """Of 120, 100 cannot be saved: 0.9 of it is 108, which leaves 8 of 20."""
    rows = [[(20, 0.0), (12, 0.1), (8, 0.2), (4, 0.9)]]
    assert allot(Budget(parameters=0.9), layers_for(rows), Cost(120, 120)) == {"0": (2,)}
    with pytest.raises(InvalidArgument, match="Budget: expected a share of at least 0.867 with these layers"):
        allot(Budget(parameters=0.8), layers_for(rows), Cost(120, 120))


def test_what_is_not_called_has_nothing_to_save() -> None:
    """The second layer would lose nothing, and may not be cut all the same."""
    rows = [[(100, 0.0), (40, 0.5)], [(100, 0.0), (10, 0.0)]]
    called, idle = layers_for(rows)
    shapes = (torch.Size((1, 100)),)
    called = replace(called, group=Group((replace(called.group.layer, input_shapes=shapes),)))
    assert allot(Budget(multiply_adds=0.75), [called, idle], Cost(200, 200)) == {"0": (1,), "1": None}


def test_a_budget_asks_for_what_proposals_cost_and_lose() -> None:
    (candidate,) = layers_for([[(20, 0.0), (12, 0.1)]])
    for fields, message in (({"loss": None}, "loss"), ({"multiply_adds": None}, "multiply-adds")):
        (option,) = candidate.options
        layer = replace(candidate.group.layer, input_shapes=(torch.Size((1, 20)),))
        option.proposal = replace(option.proposal, **fields)
        given = Candidate(Group((layer,)), candidate.before, (option,))
        with pytest.raises(InvalidArgument, match=f"Budget: expected proposals that say their {message}, found one"):
            Budget(multiply_adds=0.5).prepare([given], Cost(20, 20))
        option.proposal = replace(option.proposal, loss=0.1, multiply_adds=12)


def test_a_budget_is_of_a_whole_network() -> None:
    (candidate,) = layers_for([[(20, 0.0), (12, 0.1)]])
    with pytest.raises(InvalidArgument, match="Budget: expected a whole network, in `prepare`, found '0' alone"):
        Budget(parameters=0.5).choose(candidate)
