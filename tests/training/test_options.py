from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt.factorization import SVD
from netopt.training.trainer import Epoch

DATA = [(torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1]))]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer of at least 1, found 0"),
        ({"lr": 0.0}, r"lr: expected a number above 0, found 0\.0"),
        ({"warmup": 1.5}, "warmup: expected a share of the steps, from 0 to 1, found 1.5"),
        ({"label_smoothing": -1}, "label_smoothing: expected a number from 0 to 1, found -1"),
        ({"clip_norm": 0}, "clip_norm: expected a number above 0, found 0"),
        ({"seed": -1}, "seed: expected an integer from 0"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(netopt.InvalidArgument, match=message):
        netopt.Training(**{"epochs": 1, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distillation": 0.5}, r"distillation: expected a Distillation, found 0\.5"),
        ({"optimizer": None}, "optimizer: expected a function, found None"),
        ({"penalty": 0.1}, r"penalty: expected a function, found 0\.1"),
        ({"bfloat16": "yes"}, "bfloat16: expected True or False, found 'yes'"),
    ],
)
def test_other_types(options: dict[str, Any], message: str) -> None:
    with pytest.raises(netopt.InvalidType, match=message):
        netopt.Training(**{"epochs": 1, **options})


@pytest.mark.parametrize("value", [-3, 3.7, "5", True, math.nan, math.inf, None, [1], 1j])
@pytest.mark.parametrize("name", ["epochs", "lr", "warmup", "label_smoothing", "clip_norm", "seed", "bfloat16"])
def test_every_number_is_checked(name: str, value: Any) -> None:
    """Those that some of them take: 3.7 as a rate or a bound, True, no bound, and one without an end."""
    taken = {"lr": [3.7], "clip_norm": [3.7, math.inf, None], "bfloat16": [True]}
    if any(value is right or (type(value) is float and value == right) for right in taken.get(name, [])):
        netopt.Training(**{"epochs": 1, name: value})
        return
    with pytest.raises(netopt.NetoptError, match=f"^{name}: expected .*, found "):
        netopt.Training(**{"epochs": 1, name: value})


@pytest.mark.parametrize("path", [-3, 3.7, True, [], b"net", ""])
def test_the_checkpoint_is_a_path(path: Any) -> None:
    with pytest.raises(netopt.NetoptError, match="^checkpoint: expected the path of a file, found "):
        netopt.retrain(nn.Linear(6, 3), [(torch.zeros(1, 6), torch.tensor([0]))], epochs=1, checkpoint=path)


def test_options_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        netopt.Training(epochs=1).epochs = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        netopt.Training(1)  # type: ignore[call-arg, misc]


def test_it_trains_as_retrain_with_the_same_options() -> None:
    options: dict[str, Any] = {"epochs": 3, "lr": 0.05, "warmup": 0.2, "label_smoothing": 0.1, "clip_norm": 1.0}
    options |= {"seed": 5, "distillation": netopt.Distillation(weight=0.5), "penalty": lambda m: m[0].weight.sum()}
    logs: tuple[list[Epoch], list[Epoch]] = ([], [])
    first = netopt.retrain(model(), DATA, teacher=model(), on_epoch=logs[0].append, **options)
    again = netopt.Training(**options).on(DATA, teacher=model(), on_epoch=logs[1].append)(model())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert [epoch.loss for epoch in logs[0]] == [epoch.loss for epoch in logs[1]]
    assert not torch.equal(next(first.parameters()), next(model().parameters()))


@pytest.mark.parametrize(
    ("on", "message"),
    [
        (lambda t: t.on([]), "data: expected at least one batch, found none"),
        (lambda t: t.on(DATA, teacher=3), "teacher: expected a torch.nn.Module, found int"),
        (lambda t: t.on(DATA, evaluate=3), "evaluate: expected a function, found 3"),
        (lambda t: t.on(DATA, on_epoch=3), "on_epoch: expected a function, found 3"),
        (
            lambda t: dataclasses.replace(t, distillation=netopt.Distillation()).on(DATA),
            "distillation: expected a teac",
        ),
    ],
)
def test_what_it_trains_on_is_checked_at_once(on: Callable[[netopt.Training], object], message: str) -> None:
    with pytest.raises(netopt.NetoptError, match=message):
        on(netopt.Training(epochs=1))


def test_training_and_recovery_in_one_call(tmp_path: Path) -> None:
    """Each replacement is followed by one epoch, the last by the training, whose checkpoint names it."""
    logs: tuple[list[Epoch], list[Epoch]] = ([], [])
    short = netopt.Training(epochs=1, lr=0.01)
    long = dataclasses.replace(short, epochs=2)
    result = netopt.optimize(
        model(),
        SVD(rank=1),
        recover=short.on(DATA, teacher=model(), on_epoch=logs[0].append),
        train=long.on(DATA, checkpoint=tmp_path / "c", on_epoch=logs[1].append),
    )
    assert [row.replaced for row in result.report.rows] == [True, True]
    assert [epoch.number for epoch in logs[0]] == [1, 1]
    assert [epoch.number for epoch in logs[1]] == [1, 2]
    state = torch.load(tmp_path / "c", weights_only=True)
    assert state["training"] == "2 epochs of 1 batches, lr 0.01, seed 0"


def test_the_text_of_a_checkpoint_names_what_is_not_the_default(tmp_path: Path) -> None:
    """Files of earlier versions hold this text."""
    training = netopt.Training(
        epochs=1, lr=0.5, warmup=0.0, label_smoothing=0.1, clip_norm=1.0, bfloat16=True, seed=3, penalty=_penalty
    )
    training.on(DATA, teacher=model(), checkpoint=tmp_path / "c")(model())
    assert torch.load(tmp_path / "c", weights_only=True)["training"] == (
        "1 epochs of 1 batches, lr 0.5, seed 3, warmup 0.0, label_smoothing 0.1, clip_norm 1.0, bfloat16 True, "
        "Distillation(temperature=4.0, weight=0.7, features=0.0), with a penalty"
    )


def _penalty(model: nn.Module) -> torch.Tensor:
    return torch.zeros(())
