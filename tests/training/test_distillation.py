"""The teacher's part of the loss, against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import netopt
from netopt import InvalidArgument
from netopt.factorization import SVD
from netopt.training.distillation import Distillation, Outputs, at_least_float32, kl_divergence, match, replaced_layers


def logits(seed: int) -> torch.Tensor:
    return torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergence_and_its_gradient_as_hinton_has_them(temperature: float) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    divergence = kl_divergence(student, teacher, temperature)
    p, q = softmax(teacher.numpy() / temperature), softmax(student.detach().numpy() / temperature)
    assert divergence.item() == pytest.approx(temperature**2 * (p * np.log(p / q)).sum() / 6, rel=1e-12)
    divergence.backward()
    # T^2 times 1 / T (q - p), equation 2 of the paper, for the mean over the batch.
    assert np.allclose(student.grad, temperature * (q - p) / 6, rtol=1e-12, atol=1e-15)


def test_divergence_from_itself_is_zero() -> None:
    assert kl_divergence(logits(0), logits(0) + 3, 2.0).item() == pytest.approx(0, abs=1e-14)


def test_divergence_of_logits_that_do_not_fit() -> None:
    with pytest.raises(InvalidArgument, match=r"teacher: expected the model's \(6, 5\), found \(6, 1\)"):
        kl_divergence(logits(0), logits(1)[:, :1], 1.0)


def test_match_is_the_mean_of_relative_errors() -> None:
    student, teacher = {"a": logits(0), "b": logits(1)[:, 0]}, {"a": logits(2), "b": logits(3)[:, 0]}
    errors = []
    for name in "ab":
        s, t = student[name].numpy(), teacher[name].numpy()
        errors.append(((s - t) ** 2).sum() / (t**2).sum())
    assert match(student, teacher).item() == pytest.approx(sum(errors) / 2, rel=1e-12)
    assert match(teacher, teacher).item() == 0


def test_match_with_an_output_of_zeros_is_finite() -> None:
    assert match({"a": torch.zeros(2, 2)}, {"a": torch.zeros(2, 2)}).item() == 0


def test_match_of_outputs_that_do_not_fit() -> None:
    with pytest.raises(InvalidArgument, match=r"layer 'a': output: expected the teacher's \(2, 3\), found \(2, 1\)"):
        match({"a": torch.zeros(2, 1)}, {"a": torch.zeros(2, 3)})


def test_precision_of_losses() -> None:
    assert at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype is torch.float32
    assert at_least_float32(torch.ones(1, dtype=torch.float64)).dtype is torch.float64


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


def test_replaced_layers_are_those_that_a_technique_replaced() -> None:
    model = network()
    optimized = netopt.optimize(model, SVD(rank=2))
    assert [row.layer for row in optimized.report.rows if row.replaced] == ["0", "2", "4"]
    assert replaced_layers(optimized.model, model) == ["0", "2", "4"]
    assert replaced_layers(netopt.optimize(model, SVD(rank=2, select="2")).model, model) == ["2"]


def test_no_replaced_layer_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="features: expected a replaced layer .*; give the original as teacher"):
        replaced_layers(network(), network())


def test_outputs_are_those_before_an_activation_in_place() -> None:
    model, x = network(), torch.randn(4, 6)
    outputs = Outputs(model, ["0", "2"])
    with outputs.recording():
        model(x)
    first = model[0](x)
    assert torch.equal(outputs.of["0"], first)
    assert bool((first < 0).any())
    assert torch.equal(outputs.of["2"], model[2](first.relu()))
    with outputs.recording():
        model(2 * x)
    assert torch.equal(outputs.of["0"], model[0](2 * x))


def test_recording_ends() -> None:
    model = network()
    outputs = Outputs(model, ["0"])
    with outputs.recording():
        model(torch.zeros(1, 6))
    before = dict(outputs.of)
    model(torch.ones(1, 6))
    assert outputs.of["0"] is before["0"]
    with pytest.raises(RuntimeError), outputs.recording():
        model(torch.zeros(1, 7))
    assert not model[0]._forward_hooks


def test_a_layer_that_is_not_called_is_an_error() -> None:
    model = network()
    outputs = Outputs(model, ["0", "4"])
    with outputs.recording():
        model(torch.zeros(1, 6))
    message = "layer '4': output to match: expected a call of the layer, found none; give features=0"
    with pytest.raises(InvalidArgument, match=message), outputs.recording():
        model[:4](torch.zeros(1, 6))


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", True, None])
@pytest.mark.parametrize("name", ["temperature", "weight", "features"])
def test_options_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=f"{name}.*: expected a number .*, found"):
        Distillation(**{name: value})


def test_options_at_their_ends() -> None:
    with pytest.raises(InvalidArgument, match="temperature: expected a number above 0, found 0"):
        Distillation(temperature=0)
    with pytest.raises(InvalidArgument, match=r"weight of the teacher: expected a number from 0 to 1, found 1.01"):
        Distillation(weight=1.01)
    assert (Distillation(weight=0).weight, Distillation(weight=1).weight) == (0, 1)
    with pytest.raises(TypeError):
        Distillation(4.0)  # type: ignore[misc]
