"""A whole network decomposed in one call."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from netopt import Cost, InvalidArgument, InvalidType, optimize
from netopt.factorization import (
    CP,
    SVD,
    Budget,
    ChannelSVD,
    DepthwiseSVD,
    Energy,
    FactoredConv,
    FactoredDense,
    SpatialSVD,
    Tucker,
    decompose,
)
from netopt.graph.capture import capture
from tests.pipelines import run_passes
from tests.tolerance import assert_within, judge

X = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(16, 24, 3, stride=2), nn.ReLU()),
        nn.Conv2d(24, 24, 1),
        nn.Flatten(),
        nn.Linear(24 * 16, 20),
    )


def reasons(model: nn.Module, *args: Any, **options: Any) -> dict[str, str]:
    report = decompose(model, *args, keep_if="always", **options).report
    assert {row.technique for row in report.rows} == {"decompose"}
    return {row.layer: row.reason for row in report.rows}


def test_methods_by_kind_of_layer_without_the_first() -> None:
    assert reasons(network(), 4) == {
        "0": "is the first layer",
        "2.0": "Tucker(16 -> 4 [3 x 3] 4 -> 24)",
        "3": "ChannelSVD(24 -> 4 -> 24)",
        "5": "FactoredDense(384 -> 4 -> 20, bias=True)",
    }
    assert reasons(network(), (3,), convolution=SpatialSVD, first=True)["0"] == "SpatialSVD(3 [3 x 1] 3 [1 x 3] 16)"


def test_methods_as_classes_and_as_techniques() -> None:
    found = reasons(network(), 5, convolution=CP(rank=3, ways=3), pointwise=Tucker, dense=SVD(rank=2), first=True)
    assert found == {
        "0": "CP(3 -> 3 [3 x 3] 3 -> 16)",
        "2.0": "CP(16 -> 3 [3 x 3] 3 -> 24)",
        "3": "Tucker(24 -> 5 -> 24)",
        "5": "FactoredDense(384 -> 2 -> 20, bias=True)",
    }


def test_kinds_without_a_method_are_left_whole() -> None:
    none = "no method for its kind was given"
    assert reasons(network(), 4, convolution=None, pointwise=None, dense=None) == {
        "0": "is the first layer",
        "2.0": none,
        "3": none,
        "5": none,
    }
    assert reasons(network(), 1, pointwise=DepthwiseSVD)["3"] == "a 1 x 1 kernel has nothing to separate"
    transposed = nn.Sequential(nn.Linear(4, 4), nn.ConvTranspose2d(4, 6, 3), nn.Conv1d(4, 6, 3))
    assert reasons(transposed, 1, convolution=DepthwiseSVD)["1"] == none
    assert reasons(transposed, 1, convolution=SpatialSVD)["2"] == none


def test_kernels_of_one_place_in_all_dimensions() -> None:
    model = nn.ModuleList(
        [nn.Linear(2, 2), nn.Conv1d(8, 8, 1), nn.ConvTranspose2d(8, 8, 1, stride=2), nn.Conv2d(8, 8, (1, 3))]
    )
    found = reasons(model, 2)
    assert [found[name] for name in "123"] == [
        "ChannelSVD(8 -> 2 -> 8)",
        "ChannelSVD(8 -> 2 -> 8)",
        "Tucker(8 -> 2 [1 x 3] 2 -> 8)",
    ]


def test_the_composed_network_computes_the_same() -> None:
    model = network().double()
    new = decompose(model, 0.5, first=True, keep_if="always").model
    composed = copy.deepcopy(model)
    for name, module in new.named_modules():
        if isinstance(module, FactoredConv | FactoredDense):
            composed.get_submodule(name).weight.data = module.weight.detach()
    torch.testing.assert_close(new(X.double()), composed(X.double()), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(new(X.double()), model(X.double()))


@pytest.mark.parametrize("share", [0.7, 0.5])
def test_a_budget_covers_all_kinds_together(share: float) -> None:
    model = network()
    result = decompose(model, Budget(multiply_adds=share), example=X, keep_if="always", first=True)
    before, after = (Cost.of(m, [X.shape]).multiply_adds for m in (model, result.model))
    assert after <= share * before
    result = decompose(model, Budget(parameters=share), keep_if="always")
    before, after = (Cost.of(m).parameters for m in (model, result.model))
    assert after <= share * before
    assert isinstance(result.model[5], FactoredDense)


def test_a_budget_cuts_where_it_costs_least() -> None:
    """Of two layers of one size, that of low rank."""
    model = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 32), nn.Linear(32, 16))
    model[2].weight.data = torch.randn(16, 2) @ torch.randn(2, 32)
    result = decompose(model, Budget(parameters=0.75), keep_if="always")
    assert [row.replaced for row in result.report.rows] == [False, False, True]
    assert result.report.rows[2].error < 1e-5


def test_a_budget_is_one_for_all_methods() -> None:
    with pytest.raises(InvalidArgument, match="Budget: expected one for all methods, found different rules for rank"):
        decompose(network(), Budget(parameters=0.5), dense=SVD(rank=3))
    with pytest.raises(InvalidArgument, match="Budget.multiply_adds=.* expected an example"):
        decompose(network(), Budget(multiply_adds=0.5))
    with pytest.raises(InvalidArgument, match="Budget: expected a share of at least"):
        decompose(network(), Budget(parameters=0.01))


def test_options_are_passed_on() -> None:
    model, trained = network(), []

    def train(new: nn.Module) -> None:
        trained.append([type(module).__name__ for module in new])

    result = decompose(model, 4, select=["2.*", nn.Linear], train=train, lower=True, example=X, keep_if="always")
    assert [row.reason for row in result.report.rows if row.layer in ("0", "3")] == ["filtered out"] * 2
    assert trained == [["Conv2d", "ReLU", "Sequential", "Conv2d", "Flatten", "FactoredDense"]]
    assert result.program is not None
    (bounded,) = judge(run_passes(capture(result.model.eval(), X)[0]), [X])
    assert_within(result.program(X), bounded)
    decompose(model, 4, train=train, iterative=True, keep_if="always")
    assert len(trained) == 1 + 3 + 1


def test_calibration_is_passed_on() -> None:
    x = torch.randn(8, 1, 10, 10).expand(8, 3, 10, 10) + 0.1 * torch.randn(8, 3, 10, 10)
    plain, aware = (decompose(network(), Energy(0.8), calibration=c, keep_if="always").report for c in (None, x))
    ranks = [[row.after.parameters for row in report.rows[1:]] for report in (plain, aware)]
    assert sum(ranks[1]) < sum(ranks[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convolution": SVD}, "convolution: expected a ConvFactorization, or the class of one"),
        ({"pointwise": "svd"}, "pointwise: expected a ConvFactorization"),
        ({"dense": Tucker(rank=2)}, "dense: expected a SVD, or the class of one, found Tucker"),
        ({"dense": 3}, "dense: expected a SVD"),
        ({"select": 3}, "selection of layers"),
    ],
)
def test_wrong_types(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidType, match=message):
        decompose(network(), 2, **options)


def test_wrong_values() -> None:
    with pytest.raises(InvalidArgument, match="rank: expected as a fraction"):
        decompose(network(), 1.5)
    with pytest.raises(InvalidType, match="rank: expected an int"):
        decompose(network(), "half")  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="model: expected a torch.nn.Module"):
        decompose(3, 2)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="layer '3': rank: expected an integer from 1 to the full rank 24"):
        decompose(network(), 30, convolution=None)
    with pytest.raises(TypeError, match="speed"):
        decompose(network(), 2, speed=3)


def test_a_technique_with_a_selection_of_its_own_is_refused() -> None:
    """It would be ignored."""
    with pytest.raises(InvalidArgument, match="convolution: expected a technique without select.*; give select="):
        decompose(network(), 2, convolution=Tucker(rank=2, select="0"))


def test_the_model_is_left_alone() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    decompose(model, Budget(parameters=0.5), keep_if="always")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [type(module) for module in model] == [type(module) for module in network()]


def test_it_is_optimize_with_the_method_of_each_kind() -> None:
    model = network()
    by_hand = optimize(
        model,
        [Tucker(rank=0.3, select="2.0"), ChannelSVD(rank=0.3, select="3"), SVD(rank=0.3)],
        keep_if="always",
    ).model
    new = decompose(model, 0.3, keep_if="always").model
    assert torch.equal(new(X), by_hand(X))


@pytest.mark.parametrize("first", [1, None, "yes", float("nan")])
def test_first_is_true_or_false(first: Any) -> None:
    with pytest.raises(InvalidType, match="first: expected True or False, found "):
        decompose(nn.Sequential(nn.Linear(4, 4)), 1, first=first)
