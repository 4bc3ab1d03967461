"""Layers whose weight is computed, pruned layers, and layers that were replaced before: each has a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from netopt import Cost, InvalidType, Keep, Layer, Technique, optimize
from netopt.factorization import SVD, Budget, FactoredDense, Tucker, decompose
from netopt.quantization import XNOR, Ternary, convert_to_binary_convolution
from netopt.transform.apply import transform
from netopt.transform.layer_report import Report
from netopt.transform.site import sites_of

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


def network() -> nn.Sequential:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(12, 10)),
        nn.ReLU(),
        nn.utils.spectral_norm(nn.Linear(10, 10)),
        nn.Linear(10, 9),
        prune.l1_unstructured(nn.Linear(9, 8), "weight", amount=0.5),
    ).eval()


def test_a_layer_whose_weight_is_computed_is_a_candidate() -> None:
    model, x = network(), torch.randn(3, 12)
    y = model(x)
    _, report = transform(model, SVD(rank=3), example=x)
    rows = {row.layer: row for row in report.rows}
    assert [(name, row.kind, row.replaced) for name, row in rows.items()] == [
        ("0", "Linear", True),
        ("2", "Linear", True),
        ("3", "Linear", True),
        ("4", "Linear", False),
    ]
    assert rows["0"].reason == "FactoredDense(12 -> 3 -> 10, bias=True); its weight_norm is folded"
    assert rows["2"].reason == "FactoredDense(10 -> 3 -> 10, bias=True); its spectral_norm is folded"
    assert rows["3"].reason == "FactoredDense(10 -> 3 -> 9, bias=True)"
    assert "prune.remove" in rows["4"].reason
    assert rows["0"].before == Cost(130, 3 * 120)
    # The user's model is as it was.
    assert torch.equal(model(x), y)
    assert hasattr(model[0], "parametrizations")


def test_what_replaces_it_is_made_of_the_weight_that_it_has() -> None:
    model, x = network(), torch.randn(3, 12)
    full = transform(model, SVD(rank=lambda w: min(w.shape)), keep_if="always")[0]
    assert isinstance(full[0], FactoredDense)
    torch.testing.assert_close(full(x), model(x))


def test_a_layer_that_is_not_replaced_keeps_the_computation_of_its_weight() -> None:
    model, x = network(), torch.randn(3, 12)
    new, report = transform(model, SVD(rank=9), keep_if="smaller")
    assert [row.replaced for row in report.rows] == [False] * 4
    assert "folded" not in report.rows[0].reason
    assert torch.equal(new(x), model(x))
    assert hasattr(new[0], "parametrizations")


def test_shared_weights_and_hooks_are_obstacles_as_ever() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), parametrizations.weight_norm(nn.Linear(4, 4)))
    model[1].parametrizations.weight.original1 = model[0].parametrizations.weight.original1  # type: ignore[union-attr]
    first, second = sites_of(model, (nn.Linear,))
    assert first.obstacle is not None and first.obstacle.startswith("its original1 is shared: 0.parametrizations")
    assert second.obstacle == first.obstacle
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)))
    model[0].register_forward_hook(lambda *arguments: None)
    assert sites_of(model, (nn.Linear,))[0].obstacle == "has hooks, which a replacement would lose"


def test_a_layer_is_folded_as_it_was_trained() -> None:
    def recover(model: nn.Module) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith("2.parametrizations"):
                    parameter.fill_(1.0)

    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 8)))
    new = transform(model, SVD(rank=1), recover=recover)[0]
    torch.testing.assert_close(new[2].weight, torch.full((8, 8), 1 / 8**0.5))


def test_recover_must_leave_parametrizations_where_they_are() -> None:
    def recover(model: nn.Module) -> None:
        model[2] = nn.Linear(8, 8)  # type: ignore[operator]

    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 8)))
    with pytest.raises(InvalidType, match="layer '2': recover: .* here a ParametrizedLinear, found a Linear"):
        transform(model, SVD(rank=1), recover=recover)


def test_all_kinds_of_techniques_take_them() -> None:
    def convolutions() -> nn.Sequential:
        norm = parametrizations.weight_norm
        return nn.Sequential(norm(nn.Conv2d(3, 16, 3)), norm(nn.Conv2d(16, 16, 3)), nn.Flatten(), nn.Linear(576, 10))

    rows = optimize(convolutions(), XNOR(), keep_if="always").report.rows
    assert [row.reason for row in rows][:2] == [
        "is the first layer, which is left as it is unless it is selected",
        "BinaryBlock; its weight_norm is folded",
    ]
    rows = decompose(convolutions(), Budget(parameters=0.25), keep_if="always").report.rows
    assert [(row.layer, row.replaced) for row in rows] == [("0", False), ("1", True), ("3", True)]
    reports: list[Report] = []
    convert_to_binary_convolution(convolutions(), on_report=reports.append)
    assert [row.replaced for row in reports[0].rows] == [False, True]
    assert reports[0].rows[0].reason.startswith("is the first convolution")


def test_a_layer_that_was_replaced_before_has_a_row() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    report = transform(model, [Ternary(select="1"), Tucker(rank=1)], keep_if="always")[1]
    rows = [row for row in report.rows if row.technique == "Tucker"]
    assert [(row.layer, row.kind, row.replaced) for row in rows] == [
        ("0", "Conv2d", True),
        ("1", "Conv2d", False),
        ("2", "Conv2d", True),
    ]
    assert rows[1].reason == "was replaced by Ternary"
    assert rows[1].before == rows[1].after == report.rows[1].after


@dataclass(frozen=True, kw_only=True)
class Stacks(Technique):
    """Replaces nothing."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Sequential,)

    def replace(self, layer: Layer) -> Keep:
        return Keep("stays")


def test_there_is_no_such_row_for_what_the_technique_does_not_handle_or_has_parts_of() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    report = transform(model, [SVD(rank=1, select="0"), SVD(rank=1), Stacks()], keep_if="always")[1]
    assert [(row.technique, row.layer) for row in report.rows] == [
        ("SVD", "0"),
        ("SVD", "1"),
        ("SVD", "0.v"),
        ("SVD", "0.u"),
        ("SVD", "1"),
        ("Stacks", ""),
    ]
