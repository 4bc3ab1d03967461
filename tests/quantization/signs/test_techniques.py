"""Techniques on whole networks: which layers, what is kept of them, reports, files, options."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import netopt
from netopt import InvalidArgument, InvalidType, load_weights, save_weights
from netopt.quantization import (
    STE,
    XNOR,
    ApproxSign,
    Binary,
    BinaryBlock,
    BinaryConnect,
    BinaryWeight,
    Identity,
    LowBitConv1d,
    LowBitConv2d,
    LowBitLinear,
    Residual,
    ResidualInputs,
    ResidualWeights,
    RPReLU,
    Shift,
    SignInputs,
    SignWeights,
    Ternary,
    TernaryWeights,
)
from netopt.quantization.signs.techniques import LowBitTechnique
from tests.quantization.signs.networks import FULL, TECHNIQUES, X, apply, inner, network, same
from tests.quantization.signs.test_forms import signs_of

WEIGHTED = ["0", "3", "5", "9", "11"]


# What a predecessor did wrong


@pytest.mark.parametrize("name", TECHNIQUES)
def test_first_and_last_layer_are_not_replaced_unasked(name: str) -> None:
    rows = apply(TECHNIQUES[name]).report.rows
    assert [(row.layer, row.replaced) for row in rows] == [(layer, layer in {"3", "5", "9"}) for layer in WEIGHTED]
    reason = "is the {} layer, which is left as it is unless it is selected"
    assert [rows[0].reason, rows[-1].reason] == [reason.format("first"), reason.format("last")]


@pytest.mark.parametrize(
    ("select", "chosen"),
    [("3", {"3"}), (["0", "11"], {"0", "11"}), (nn.Linear, {"9", "11"}), (lambda layer: layer.is_first, {"0"})],
)
def test_a_selection_is_honoured_and_not_ignored(select: Any, chosen: set[str]) -> None:
    result = apply(Binary(select=select))
    assert {row.layer for row in result.report.rows if row.replaced} == chosen
    assert {name for name, module in result.model.named_modules() if isinstance(module, BinaryBlock)} == chosen
    assert {row.reason for row in result.report.rows if not row.replaced} == {"filtered out"}


@pytest.mark.parametrize("name", TECHNIQUES)
def test_trained_weights_and_biases_are_kept_and_not_drawn_anew(name: str) -> None:
    model = network()
    new = apply(TECHNIQUES[name], model).model
    for place in (0, 3, 5, 9, 11):
        assert torch.equal(inner(new[place]).weight, model[place].weight)
        assert (inner(new[place]).bias is None) == (model[place].bias is None)
        if model[place].bias is not None:
            assert torch.equal(inner(new[place]).bias, model[place].bias)


def test_the_bias_counts_in_the_output() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Conv1d(2, 2, 1))
    for layer, x in zip(model, (torch.randn(2, 3), torch.randn(1, 2, 3)), strict=True):
        new = apply(BinaryConnect(select="0"), nn.Sequential(layer)).model
        before = new(x)
        with torch.no_grad():
            new[0].bias.add_(8)
        assert torch.allclose(new(x), before + 8, rtol=0, atol=1e-5)  # two roundings of numbers near 10


def test_activations_after_the_layers_are_not_lost() -> None:
    model = network()
    new = apply(FULL, model).model
    kept = [module for module in model if not isinstance(module, nn.Conv2d | nn.Linear)]
    assert [type(module) for module in new] == [
        BinaryBlock if place in {3, 5, 9} else type(module) for place, module in enumerate(model)
    ]
    assert [str(module) for module in new if module.__class__ in {type(k) for k in kept}] == [str(m) for m in kept]


@pytest.mark.parametrize(
    "technique", [Binary(select="1", normalize=False), BinaryWeight(select="1"), Residual(select="1")]
)
def test_the_sign_of_zero_is_one_and_not_zero(technique: LowBitTechnique) -> None:
    """Of an input after a ReLU, and of a weight that was pruned."""
    model = nn.Sequential(nn.ReLU(), nn.Linear(3, 1, bias=False))
    nn.init.zeros_(model[1].weight)
    layer = inner(apply(technique, model).model[1])
    (_, signs), *_ = layer.weight_form.terms(layer.weight, True)
    assert signs.unique().tolist() == [1]
    if layer.input_form is not None:
        assert layer(torch.zeros(2, 3)).tolist() == [[3], [3]]


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_batch_is_more_than_its_first_example(name: str) -> None:
    new, x = apply(TECHNIQUES[name], network().double()).model, torch.randn(5, 3, 8, 8).double()
    for _ in range(20):
        new(torch.randn(16, 3, 8, 8).double())  # for statistics, without which all signs after a ReLU are +1
    y = new.eval()(x)
    assert (len({tuple(row) for row in y.tolist()}) > 1) == (name != "Binary, bare")
    for example, expected in zip(x, y, strict=True):
        # Sums in another order, of up to 72 numbers below 8.
        assert torch.allclose(new(example[None])[0], expected, rtol=0, atol=72 * 2**-49)


# What is carried over, and what stays


@pytest.mark.parametrize("name", TECHNIQUES)
def test_the_callers_model_and_random_state_are_not_changed(name: str) -> None:
    model = network()
    before, text, state = copy.deepcopy(model), str(model), torch.get_rng_state()
    new = apply(TECHNIQUES[name], model).model
    assert torch.equal(torch.get_rng_state(), state)
    for _ in range(2):
        new(torch.randn(X)).sum().backward()
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(1)
    assert same(model, before)
    assert str(model) == text
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", TECHNIQUES)
def test_dtype_mode_and_gradients_are_carried_over(name: str) -> None:
    model = network().double()
    model[3].requires_grad_(False).eval()
    model[9].bias.requires_grad_(False)
    new = apply(TECHNIQUES[name], model).model
    assert {p.dtype for p in new.parameters()} == {torch.float64}
    assert new(torch.randn(X).double()).dtype is torch.float64
    assert [any(module.training for module in new[place].modules()) for place in (3, 5, 9)] == [False, True, True]
    assert all(module.training for module in new[5].modules())
    assert not any(p.requires_grad for p in new[3].parameters())
    assert all(p.requires_grad for p in new[5].parameters())
    assert [name for name, p in new[9].named_parameters() if not p.requires_grad] in (["bias"], ["layer.bias"])


@pytest.mark.parametrize("name", TECHNIQUES)
def test_round_trip_through_a_file(name: str, tmp_path: Path) -> None:
    model = network()
    new = apply(TECHNIQUES[name], model).model
    new(torch.randn(X))  # gives batch normalization its statistics
    save_weights(new, tmp_path / "net.safetensors")
    loaded = load_weights(model, tmp_path / "net.safetensors")
    assert str(loaded) == str(new)
    assert same(loaded, new)
    x = torch.randn(X)
    assert torch.equal(loaded.eval()(x), new.eval()(x))


# What is put in the place of a layer


def test_forms_of_the_techniques() -> None:
    """Of weights and inputs, in the place of a convolution along one axis, of images, and of a dense layer."""
    wanted: list[tuple[LowBitTechnique, Any, Any]] = [
        (Binary(estimator=ApproxSign()), SignWeights(scaled=False), SignInputs(estimator=ApproxSign())),
        (XNOR(), SignWeights(scaled=True), SignInputs(estimator=STE())),
        (BinaryWeight(estimator=Identity()), SignWeights(scaled=True, estimator=Identity()), None),
        (BinaryConnect(stochastic=True), SignWeights(scaled=False, stochastic=True), None),
        (BinaryConnect(estimator=STE(2.0)), SignWeights(scaled=False, estimator=STE(2.0)), None),
        (Ternary(), TernaryWeights(), None),
        (Residual(), ResidualWeights(number=2), None),
        (Residual(weight_terms=1, input_terms=3), ResidualWeights(number=1), ResidualInputs(number=3)),
    ]
    first, last = nn.Linear(2, 2), nn.Linear(2, 2)
    model = nn.Sequential(first, nn.Conv1d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Linear(2, 2), last)
    for technique, weights, inputs in wanted:
        layers = [inner(module) for module in apply(technique, model).model[1:4]]
        assert [type(layer) for layer in layers] == [LowBitConv1d, LowBitConv2d, LowBitLinear]
        for layer in layers:
            assert (layer.weight_form, layer.input_form, layer.final_form) == (weights, inputs, None)
            assert layer.pad_one is False
    layers = [inner(module) for module in apply(Binary(pad_one=True), model).model[1:4]]
    assert [layer.pad_one for layer in layers] == [True, True, False]


def test_xnor_is_binary_with_the_mean_magnitude() -> None:
    model, x = nn.Sequential(nn.Linear(5, 3)), torch.randn(4, 5)
    w, b = model[0].weight.detach().numpy(), model[0].bias.detach().numpy()
    sums = signs_of(x.numpy()) @ signs_of(w).T
    for kind, alpha in ((Binary, 1), (XNOR, np.abs(w).mean(1))):
        y = apply(kind(normalize=False, select="0"), model).model(x)
        assert np.allclose(y.detach(), sums * alpha + b, rtol=0, atol=1e-6)  # roundings of numbers up to 6


def test_parts_are_those_asked_for() -> None:
    bare, full = apply(Binary(normalize=False)).model[3], apply(FULL).model
    assert (len(bare.norm), bare.shortcut, type(bare.activation)) == (0, False, nn.Identity)
    assert [type(part) for part in full[3].norm] == [nn.BatchNorm2d, Shift]
    assert [type(part) for part in full[9].norm] == [nn.BatchNorm1d, Shift]
    assert type(full[3].activation) is RPReLU
    assert [full[place].shortcut for place in (3, 5, 9)] == [True, False, True]


@pytest.mark.parametrize(
    ("layer", "keeps"),
    [
        (nn.Linear(4, 4), True),
        (nn.Linear(4, 5), False),
        (nn.Conv2d(4, 4, 3, padding=1), True),
        (nn.Conv2d(4, 4, 3), False),
        (nn.Conv2d(4, 5, 3, padding=1), False),
        (nn.Conv2d(4, 4, 3, padding=1, stride=2), False),
        (nn.Conv2d(4, 4, 1, padding=32, stride=2), False),  # 64 pixels alone would stay 64
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2), True),
        (nn.Conv2d(4, 4, (3, 5), padding=(1, 2)), True),
        (nn.Conv2d(4, 4, (3, 5), padding=1), False),
        (nn.Conv2d(4, 4, 2, padding="same"), True),
        (nn.Conv2d(4, 4, 3, padding="valid"), False),
        (nn.Conv2d(4, 4, 1, padding="valid"), True),
        (nn.Conv2d(4, 4, 2, padding=1), False),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), True),
        (nn.Conv1d(4, 4, 201, padding=100), True),
        (nn.Conv1d(4, 4, 3, padding=2), False),
    ],
    ids=str,
)
def test_shortcuts_are_only_where_shapes_are_equal(layer: nn.Module, keeps: bool) -> None:
    assert apply(Binary(shortcut=True, select="0"), nn.Sequential(layer)).model[0].shortcut is keeps


def test_a_report_has_a_row_for_each_candidate() -> None:
    report = apply(BinaryConnect(select=["3", "9"])).report
    assert [(row.layer, row.kind, row.technique, row.replaced) for row in report.rows] == [
        ("0", "Conv2d", "BinaryConnect", False),
        ("3", "Conv2d", "BinaryConnect", True),
        ("5", "Conv2d", "BinaryConnect", False),
        ("9", "Linear", "BinaryConnect", True),
        ("11", "Linear", "BinaryConnect", False),
    ]
    assert report.rows[1].reason.startswith("LowBitConv2d(8, 8, kernel_size=(3, 3)")
    assert "weights=SignWeights(scaled=False" in report.rows[3].reason
    assert apply(Binary()).report.rows[1].reason == "BinaryBlock"


def test_a_layer_that_was_replaced_is_no_candidate_again() -> None:
    result = netopt.optimize(network(), [Ternary(select="3"), Binary()], keep_if="always")
    rows = {row.layer: row for row in result.report.rows if row.technique == "Binary"}
    assert (rows["3"].replaced, rows.pop("3").reason) == (False, "was replaced by Ternary")
    assert list(rows) == ["0", "5", "9", "11"]
    assert isinstance(result.model[3], LowBitConv2d)


# Errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Binary(estimator="ste"), InvalidType, r"estimator: expected STE\(\), ApproxSign\(\).*found 'ste'"),
        (lambda: XNOR(estimator=None), InvalidType, r"estimator: expected STE\(\), .*, found None"),
        (lambda: BinaryWeight(estimator=STE), InvalidType, r"estimator: expected STE\(\), .*, found <class .*STE'>"),
        (lambda: BinaryConnect(estimator=1.0), InvalidType, r"estimator: expected STE\(\), .*, found 1.0"),
        (lambda: BinaryConnect(stochastic=1), InvalidType, "stochastic: expected True or False, found 1"),
        (lambda: Residual(weight_terms=0), InvalidArgument, "number of terms: expected .* from 1 to 8, found 0"),
        (lambda: Residual(input_terms=9), InvalidArgument, "number of terms: expected an integer from 1 to 8, found 9"),
        (lambda: Residual(input_terms=-1), InvalidArgument, "number of terms: expected .* from 1 to 8, found -1"),
        (lambda: Ternary(select=3), InvalidType, "selection of layers: expected a function of a layer.*, found 3"),
        *[
            (lambda name=name: Binary(**{name: 1}), InvalidType, f"{name}: expected True or False, found 1")
            for name in ("normalize", "thresholds", "shortcut", "rprelu", "pad_one", "two_stages")
        ],
    ],
)
def test_options_are_checked_when_built(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        make()
