"""Budgets of whole networks, for factorizations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netopt
from netopt import Cost, InvalidArgument, optimize
from netopt.factorization import SVD, Budget, ChannelSVD, Tucker
from netopt.factorization.decomposition import choices
from tests.factorization.methods import handle


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
