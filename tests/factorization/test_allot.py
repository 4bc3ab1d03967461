"""Budgets, against all combinations of choices."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import netopt
from netopt import Cost, InvalidArgument, Layer, optimize
from netopt.factorization import SVD, Budget, ChannelSVD, Tucker
from netopt.factorization.allot import Choice, allot
from netopt.factorization.decomposition import choices
from tests.factorization.methods import handle


def best_of_all(limit: int, rows: list[list[tuple[int, float]]]) -> float:
    """Least sum of losses of any combination within the limit."""
    sums = [
        (sum(price for price, _ in combination), sum(loss for _, loss in combination))
        for combination in itertools.product(*rows)
    ]
    return min(loss for price, loss in sums if price <= limit)


def layers_for(rows: list[list[tuple[int, float]]]) -> list[tuple[Layer, list[Choice]]]:
    """Layers without bias of the size of the first, whole, choice, with the others as choices."""
    return [
        (
            Layer(str(index), nn.Linear(whole, 1, bias=False, device="meta"), False, False),
            [Choice((rank,), Cost(price, price), loss) for rank, (price, loss) in enumerate(options, 1)],
        )
        for index, ((whole, _), *options) in enumerate(rows)
    ]


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


# --- of networks


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 40, 1),
        nn.Flatten(),
        nn.Linear(40 * 9, 30),
    )


X = torch.zeros(1, 3, 8, 8)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("share", [0.7, 0.5, 0.35])
def test_a_network_keeps_to_its_budget_of_multiply_adds(share: float) -> None:
    model = network()
    result = optimize(model, Tucker(rank=Budget(multiply_adds=share), multiple=4), example=X, keep_if="always")
    before, after = (Cost.of(m, [X.shape]).multiply_adds for m in (model, result.model))
    # The grid has steps of 4 channels of 24 to 40: what is left is less than a tenth.
    assert 0.9 * share * before < after <= share * before


def test_the_budget_holds_for_the_lowered_network() -> None:
    model = network()
    result = optimize(model, Tucker(rank=Budget(multiply_adds=0.5), multiple=4), example=X, keep_if="always")
    before, after = netopt.lower(model, X).multiply_adds, netopt.lower(result.model, X).multiply_adds
    assert after <= 0.5 * before


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_a_network_keeps_to_its_budget_of_parameters(share: float) -> None:
    """Biases count, before and after; no example is needed."""
    model = network()
    result = netopt.factorization.decompose(model, Budget(parameters=share), keep_if="always")
    assert 0.85 * share * parameters(model) < parameters(result.model) <= share * parameters(model)


def test_biases_count_for_a_budget_of_parameters() -> None:
    """A choice that is within the budget by less than its biases is not."""
    layer = nn.Linear(8, 64)
    for percent in range(25, 100, 5):
        model = optimize(layer, SVD(rank=Budget(parameters=percent / 100))).model
        # A rank has 72 of 576 parameters.
        assert percent / 100 - 0.125 < parameters(model) / parameters(layer) <= percent / 100


def test_choices_are_those_that_save_parameters_with_their_costs() -> None:
    layer = handle(nn.Conv2d(8, 12, 1))
    found = choices(ChannelSVD(rank=1).decomposition(layer), 1)
    # 8 + 12 weights a rank, of 96, and 12 biases.
    assert [(choice.ranks, choice.cost.parameters) for choice in found] == [((r,), 20 * r + 12) for r in range(1, 5)]
    energy = torch.linalg.svdvals(layer.module.weight.detach().flatten(1).double()).square()
    for choice in found:
        assert choice.loss == pytest.approx(float(energy[choice.ranks[0] :].sum() / energy.sum()))


def test_a_budget_of_multiply_adds_needs_an_example() -> None:
    with pytest.raises(InvalidArgument, match=r"Budget.multiply_adds=\.\.\.\): expected an example, for the shapes"):
        optimize(network(), Tucker(rank=Budget(multiply_adds=0.5)))


def test_an_impossible_budget_names_the_least() -> None:
    with pytest.raises(InvalidArgument, match=r"Budget: expected a share of at least 0\.\d+ .*found 0.01"):
        optimize(network(), Tucker(rank=Budget(multiply_adds=0.01)), example=X, keep_if="always")


def test_a_budget_for_a_layer_alone() -> None:
    with pytest.raises(InvalidArgument, match="layer 'conv': Budget: expected a whole network, found a layer alone"):
        Tucker(rank=Budget(parameters=0.5)).replace(handle(nn.Conv2d(4, 6, 3)))


def test_layers_that_are_not_called_are_left_whole() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.head = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.main(x)

    x = torch.zeros(1, 16, 8, 8)
    technique = ChannelSVD(rank=Budget(multiply_adds=0.6), multiple=4)
    rows = optimize(Auxiliary(), technique, example=x, keep_if="always").report.rows
    assert [(row.layer, row.replaced, row.reason) for row in rows][1] == ("head", False, "the budget leaves it whole")
    assert rows[0].after.multiply_adds <= 0.6 * rows[0].before.multiply_adds


def test_layers_that_are_filtered_out_are_not_touched() -> None:
    technique = Tucker(rank=Budget(multiply_adds=0.8), multiple=4, select="2")
    rows = optimize(network(), technique, example=X, keep_if="always").report.rows
    assert [row.reason for row in rows if row.layer != "2"] == ["filtered out", "filtered out"]
    assert rows[1].replaced
