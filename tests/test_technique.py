"""The framework: what it gives to every technique."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from netopt import Cost, InvalidType, Keep, Layer, Technique
from netopt.technique import inherit, transform


@dataclass(frozen=True, kw_only=True)
class Halve(Technique):
    """Put two thin layers in place of one, if it has more than two outputs."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def replace(self, layer: Layer) -> nn.Module | Keep:
        if layer.out_features <= 2:
            return Keep("too small")
        return inherit(nn.Sequential(nn.Linear(layer.in_features, 1), nn.Linear(1, layer.out_features)), layer.module)


@dataclass(frozen=True, kw_only=True)
class Wrap(Technique):
    """Keep the layer inside its replacement."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)

    def replace(self, layer: Layer) -> nn.Module | Keep:
        return nn.Sequential(layer.module, nn.Identity())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.free = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False), nn.Linear(4, 9)
        self.head.weight = self.embed.weight


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 4), nn.Conv1d(4, 4, 1)), nn.Linear(4, 2)
    )


def test_rows_for_all_candidates_and_nothing_else() -> None:
    _, report = transform(network(), Halve(select=lambda layer: not layer.is_first))
    rows = [(row.layer, row.kind, row.technique, row.replaced, row.reason) for row in report.rows]
    assert rows[0] == ("0", "Linear", "Halve", False, "filtered out")
    assert rows[1][:4] == ("2.0", "Linear", "Halve", True)
    assert rows[2] == ("3", "Linear", "Halve", False, "too small")
    assert [(row.before, row.after) for row in report.rows] == [
        (Cost(35, 30), Cost(35, 30)),
        (Cost(24, 20), Cost(6 + 8, 5 + 4)),
        (Cost(10, 8), Cost(10, 8)),
    ]


def test_report_prints_as_a_table() -> None:
    lines = str(transform(network(), Halve())[1]).splitlines()
    assert lines[0].split() == [
        "layer",
        "type",
        "technique",
        "replaced",
        "note",
        "parameters",
        "->",
        "multiply-adds",
        "->",
    ]
    assert [line.split()[:4] for line in lines[2:5]] == [
        ["0", "Linear", "Halve", "yes"],
        ["2.0", "Linear", "Halve", "yes"],
        ["3", "Linear", "Halve", "no"],
    ]
    assert lines[-1] == "2 of 3 candidate layers replaced"


def test_filters_are_asked_for_each_candidate_once_and_for_nothing_else() -> None:
    asked: list[str] = []

    def note(layer: Layer) -> bool:
        asked.append(layer.name)
        return True

    transform(network(), Halve(select=note))
    assert asked == ["0", "2.0", "3"]


def test_the_callers_model_is_neither_changed_nor_shared() -> None:
    model = network()
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    new, _ = transform(model, Halve())
    assert list(model.modules()) == modules
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    pointers = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert pointers.isdisjoint(tensor.data_ptr() for tensor in new.state_dict().values())


def test_untouched_layers_keep_everything() -> None:
    model = network()
    conv, shared = model[2][1], nn.Parameter(torch.ones(4))
    model.register_buffer("count", torch.tensor(3))
    model.first, model.second = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    model.first.weight = model.second.weight = shared
    conv.bias.requires_grad_(False)
    model[2].eval()
    new, _ = transform(model, Halve())
    assert new[2][1].bias.requires_grad is False
    assert (new.training, new[2].training, new[2][1].training) == (True, False, False)
    assert (new[0].training, new[2][0].training) == (True, False)
    assert new.first.weight is new.second.weight
    assert new.count == 3
    kept = [key for key in model.state_dict() if not key.startswith(("0.", "2.0."))]
    assert all(torch.equal(new.state_dict()[key], model.state_dict()[key]) for key in kept)


def test_a_module_used_twice_is_replaced_by_one() -> None:
    shared = nn.Linear(4, 4)
    new, report = transform(nn.Sequential(shared, nn.ReLU(), shared), Halve())
    assert new[0] is new[2]
    assert isinstance(new[0], nn.Sequential)
    assert len(report.rows) == 1


def test_a_model_that_is_itself_a_candidate() -> None:
    new, report = transform(nn.Linear(6, 5), Halve())
    assert isinstance(new, nn.Sequential)
    assert report.rows[0].layer == ""
    assert "(the model)" in str(report)


def test_a_replacement_may_hold_the_layer() -> None:
    model, x = network()[:2], torch.randn(3, 6)
    new, _ = transform(model, Wrap())
    assert isinstance(new[0], nn.Sequential)
    assert torch.equal(new(x), model(x))


def test_shared_weights_are_left_alone() -> None:
    new, report = transform(Tied(), Halve())
    assert new.head.weight is new.embed.weight
    assert [(row.layer, row.replaced) for row in report.rows] == [("head", False), ("free", True)]
    assert report.rows[0].reason == "its weight is shared: embed.weight, head.weight"


@pytest.mark.parametrize(
    "register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
def test_layers_with_hooks_are_left_alone(register: str) -> None:
    model = network()
    getattr(model[0], register)(lambda *arguments: None)
    _, report = transform(model, Halve())
    assert [row.replaced for row in report.rows] == [False, True, False]
    assert "hooks" in report.rows[0].reason


def test_subclasses_are_no_candidates() -> None:
    """They may do more than the layer does: attention's output projection is read, not called."""
    _, report = transform(nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8)), Halve())
    assert [row.layer for row in report.rows] == ["1"]


def test_techniques_follow_one_another() -> None:
    model, report = transform(network()[:1], [Halve(), Wrap(select="0.1")])
    assert [(row.technique, row.layer, row.replaced) for row in report.rows] == [
        ("Halve", "0", True),
        ("Wrap", "0.0", False),
        ("Wrap", "0.1", True),
    ]
    assert isinstance(model[0][1], nn.Sequential)


@dataclass(frozen=True, kw_only=True)
class Broken(Halve):
    def replace(self, layer: Layer) -> nn.Module | Keep:
        return "nothing"  # type: ignore[return-value]


def test_wrong_arguments() -> None:
    with pytest.raises(InvalidType, match="model: expected a torch.nn.Module, found list"):
        transform([], Halve())  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="techniques"):
        transform(network(), [Halve])  # type: ignore[list-item]
    with pytest.raises(InvalidType, match="layer '0': Broken.replace: expected a module or Keep"):
        transform(network(), Broken())
    with pytest.raises(InvalidType, match="selection of layers"):
        Halve(select=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Halve("0")  # type: ignore[misc]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inherit(dtype: torch.dtype) -> None:
    original = nn.Linear(2, 2).to(dtype).eval()
    original.weight.requires_grad_(False)
    new = inherit(nn.Sequential(nn.Linear(2, 2)), original)
    assert not new.training
    assert new[0].weight.dtype is dtype
    assert not new[0].weight.requires_grad
