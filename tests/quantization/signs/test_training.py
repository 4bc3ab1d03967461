"""Stages, clipping, the pull to signs and the optimizer of flips: each against its rule in NumPy."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt import InvalidArgument, InvalidType
from netopt.quantization import (
    Binary,
    BinaryConnect,
    Bop,
    FloatWeights,
    SignInputs,
    SignWeights,
    Ternary,
    binarize_weights,
    constrain,
    pull_to_signs,
)
from netopt.quantization.signs.block import low_bit_layers
from netopt.training.trainer import Epoch
from tests.quantization.signs.networks import apply, network, same


def mlp(technique: Any = None) -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 4))
    return apply(technique or BinaryConnect(), model).model  # type: ignore[no-any-return]


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(2)
    return [(torch.randn(16, 6, generator=random), torch.randint(0, 4, (16,), generator=random)) for _ in range(4)]


# Two stages


def test_inputs_are_binary_first_and_weights_after() -> None:
    model, x = nn.Sequential(nn.Linear(6, 5)), torch.randn(3, 6)
    first = apply(Binary(two_stages=True, normalize=False, select="0"), model).model
    layer = first[0].layer
    assert (layer.weight_form, layer.final_form) == (FloatWeights(), SignWeights(scaled=False))
    assert layer.input_form == SignInputs()
    signs = torch.where(x >= 0, 1.0, -1.0)
    assert torch.equal(first(x), F.linear(signs, model[0].weight) + model[0].bias)
    second = binarize_weights(first)
    assert (second[0].layer.weight_form, second[0].layer.final_form) == (SignWeights(scaled=False), None)
    at_once = apply(Binary(normalize=False, select="0"), model).model
    assert torch.equal(second(x), at_once(x))
    assert str(second) == str(at_once)
    assert not torch.equal(second(x), first(x))


def test_the_second_stage_is_a_new_model() -> None:
    first = apply(Binary(two_stages=True)).model
    text, before = str(first), copy.deepcopy(first)
    second = binarize_weights(first)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1)
    assert str(first) == text
    assert same(first, before)
    assert all(layer.final_form is None for layer in low_bit_layers(second))
    assert len(low_bit_layers(second)) == 3


def test_a_model_without_a_first_stage() -> None:
    message = "^model: expected a layer in the first of two stages, found none; transform with two_stages=True$"
    for model in (network(), apply(Binary()).model, binarize_weights(apply(Binary(two_stages=True)).model)):
        with pytest.raises(InvalidArgument, match=message):
            binarize_weights(model)
    with pytest.raises(InvalidType, match=r"^model: expected a torch.nn.Module, found str$"):
        binarize_weights("net")  # type: ignore[arg-type]


# Clipping


@pytest.mark.parametrize(("technique", "clips"), [(BinaryConnect(), True), (Binary(), True), (Ternary(), False)])
def test_constrain_clips_latent_weights_of_signs_alone(technique: Any, clips: bool) -> None:
    model = mlp(technique)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20)
    before = copy.deepcopy(model)
    constrain(model)
    (layer,), (old,) = low_bit_layers(model), low_bit_layers(before)
    latent = old.weight.detach().numpy()
    assert np.abs(latent).max() > 1
    assert np.array_equal(layer.weight.detach(), np.clip(latent, -1, 1)) == clips
    assert torch.equal(layer.weight, old.weight) != clips
    layer.weight.data.copy_(old.weight)
    assert same(model, before)


# The pull to signs


def test_the_pull_to_signs_and_its_gradient() -> None:
    model = mlp().double()
    (layer,) = low_bit_layers(model)
    nn.init.normal_(layer.weight)
    w = layer.weight.detach().numpy()
    penalty = pull_to_signs(0.25)(model)
    assert penalty.item() == pytest.approx(0.25 * np.abs(1 - w**2).sum(), rel=1e-13)
    penalty.backward()
    assert layer.weight.grad is not None
    assert np.allclose(layer.weight.grad, 0.25 * -2 * w * np.sign(1 - w**2), rtol=1e-13, atol=0)
    assert model[0].weight.grad is None
    assert pull_to_signs()(model).item() == pytest.approx(5e-6 * np.abs(1 - w**2).sum(), rel=1e-13)


def test_the_pull_in_a_training_brings_weights_nearer_to_one() -> None:
    distances = []
    for strength in (0.0, 1.0):
        new = netopt.retrain(mlp(), data(), epochs=10, lr=1e-2, penalty=pull_to_signs(strength))
        (layer,) = low_bit_layers(new)
        distances.append((1 - layer.weight.abs()).abs().mean().item())
    assert distances[1] < 0.9 * distances[0]


def test_no_latent_weights_to_pull() -> None:
    with pytest.raises(InvalidArgument, match="^model: expected low-bit layers, found none; leave penalty out"):
        pull_to_signs()(network())
    # In the first of two stages weights are whole, and one training function serves both.
    assert pull_to_signs()(apply(Binary(two_stages=True)).model).item() == 0


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf"), True, "1", None])
def test_wrong_strengths(strength: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"^strength: expected a number of at least 0, found {strength!r}$"):
        pull_to_signs(strength)


# The optimizer of flips


@pytest.mark.parametrize(("gamma", "threshold"), [(0.3, 0.0), (0.1, 0.1), (1.0, 0.5)])
def test_weights_flip_by_the_rule(gamma: float, threshold: float) -> None:
    weight = nn.Parameter(torch.randn(6, 7).double())
    w = np.where(weight.detach().numpy() >= 0, 1.0, -1.0)
    optimizer = Bop([{"params": [weight], "latent": True}], gamma=gamma, threshold=threshold)
    assert np.array_equal(weight.detach(), w)
    average, flipped = np.zeros_like(w), []
    for _ in range(20):
        g = torch.randn(6, 7).double()
        weight.grad = g
        optimizer.step()
        average = (1 - gamma) * average + gamma * g.numpy()
        flips = (np.abs(average) > threshold) & (np.sign(average) == np.sign(w))
        w = np.where(flips, -w, w)
        flipped.append(flips.mean())
        assert np.array_equal(weight.detach(), w)
        assert np.allclose(optimizer.state[weight]["average"], average, rtol=1e-12, atol=1e-14)
    assert 0 < np.mean(flipped) < 1


def test_a_latent_weight_of_zero_starts_at_one() -> None:
    weight = nn.Parameter(torch.tensor([0.0, -0.0, -0.5, 3.0]))
    Bop([{"params": [weight], "latent": True}])
    assert weight.tolist() == [1, 1, -1, 1]


def test_the_threshold_itself_flips_nothing() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0]))
    optimizer = Bop([{"params": [weight], "latent": True}], gamma=1.0, threshold=0.5)
    weight.grad = torch.tensor([0.5, 0.75, -0.5, -0.75, -2.0])
    optimizer.step()
    assert weight.tolist() == [1, -1, -1, 1, 1]


def test_all_other_parameters_are_trained_by_adam() -> None:
    """Kingma and Ba, 1412.6980, algorithm 1, with a learning rate that changes, and steps without a gradient."""
    weight, idle = nn.Parameter(torch.randn(5).double()), nn.Parameter(torch.ones(2))
    x, m, v = weight.detach().numpy().copy(), np.zeros(5), np.zeros(5)
    optimizer = Bop([weight, idle], lr=0.1)
    for step in range(1, 11):
        g = torch.randn(5).double()
        optimizer.param_groups[0]["lr"] = lr = 0.1 / step
        weight.grad = g
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g.numpy(), 0.999 * v + 0.001 * g.numpy() ** 2
        x = x - lr * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        assert np.allclose(weight.detach(), x, rtol=1e-12, atol=1e-14)
    assert idle.tolist() == [1, 1]


def test_its_state_goes_on_where_it_stopped() -> None:
    steps = torch.randn(12, 2, 3, 4)
    runs = []
    for stop in (None, 5):
        torch.manual_seed(3)
        parameters = [nn.Parameter(torch.randn(3, 4)) for _ in range(2)]
        groups = [{"params": parameters[:1]}, {"params": parameters[1:], "latent": True}]
        optimizer, history = Bop(groups, gamma=0.2), []
        for number, gradients in enumerate(steps):
            if number == stop:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = Bop(groups, lr=7.0, gamma=0.9)
                optimizer.load_state_dict(state)
            for parameter, g in zip(parameters, gradients, strict=True):
                parameter.grad = g
            optimizer.step()
            history += [parameter.detach().clone() for parameter in parameters]
        runs.append(history)
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_a_resumed_training_is_bit_for_bit_an_uninterrupted_one(tmp_path: Path) -> None:
    model = mlp(Binary(two_stages=False))
    flips = partial(Bop, gamma=0.05, threshold=1e-6)

    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"epochs": 5, "lr": 0.01, "optimizer": flips, "penalty": pull_to_signs()}
    whole = netopt.retrain(model, data(), **options)
    with pytest.raises(KeyboardInterrupt):
        netopt.retrain(model, data(), **options, checkpoint=tmp_path / "net", on_epoch=interrupt)
    rest: list[Epoch] = []
    resumed = netopt.retrain(model, data(), **options, checkpoint=tmp_path / "net", on_epoch=rest.append)
    assert same(resumed, whole)
    assert [epoch.number for epoch in rest] == [3, 4, 5]
    (layer,), (before,) = low_bit_layers(resumed), low_bit_layers(model)
    assert layer.weight.abs().unique().tolist() == [1]
    flipped = (torch.sign(layer.weight) != torch.where(before.weight >= 0, 1.0, -1.0)).float().mean()
    assert 0 < flipped < 1
    assert before.weight.abs().max() < 1  # of the caller's model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma of Bop: expected a number above 0, up to 1, found 0.0"),
        ({"gamma": 1.5}, "gamma of Bop: expected a number above 0, up to 1, found 1.5"),
        ({"gamma": "a"}, "gamma of Bop: expected a number above 0, up to 1, found 'a'"),
        ({"threshold": -1e-9}, "threshold of Bop: expected a number of at least 0, found -1e-09"),
        ({"threshold": None}, "threshold of Bop: expected a number of at least 0, found None"),
        ({"lr": -0.1}, "lr of Bop: expected a number of at least 0, found -0.1"),
        ({"lr": float("nan")}, "lr of Bop: expected a number of at least 0, found nan"),
    ],
)
def test_wrong_numbers(options: dict[str, Any], message: str) -> None:
    weight = nn.Parameter(torch.full((2, 2), 0.5))
    with pytest.raises(InvalidArgument, match=f"^{message}$"):
        Bop([{"params": [weight], "latent": True}], **options)
    assert weight.unique().tolist() == [0.5]
