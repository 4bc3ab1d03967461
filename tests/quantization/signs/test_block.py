"""What stands around a binary layer: its formulas in NumPy, the shapes it takes, and its way through files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from netopt import FileFormatError, load_weights, restore_structure, save_weights
from netopt.quantization import (
    BinaryBlock,
    LowBitConv1d,
    LowBitConv2d,
    LowBitLinear,
    RPReLU,
    Shift,
    SignInputs,
    SignWeights,
)
from netopt.quantization.signs.block import low_bit_layers
from netopt.transform.structure_file import structure_of
from tests.quantization.signs.test_forms import CLOSE, signs_of
from tests.quantization.signs.test_layers import convolution

SIGN = SignWeights(scaled=False)
PARTS = ("normalize", "thresholds", "shortcut", "rprelu")
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "dense": (nn.Linear(6, 6), (5, 6)),
    "one axis": (nn.Conv1d(4, 4, 3, padding=1), (3, 4, 7)),
    "two axes": (nn.Conv2d(4, 4, 3, padding=1), (3, 4, 5, 6)),
}


def block(name: str = "two axes", dtype: torch.dtype = torch.float64, **parts: bool) -> BinaryBlock:
    """All parts but those given as False, with values that can be told from one another."""
    layer = copy.deepcopy(LAYERS[name][0]).to(dtype)
    kinds: list[Any] = [(nn.Linear, LowBitLinear), (nn.Conv1d, LowBitConv1d), (nn.Conv2d, LowBitConv2d)]
    ((_, kind),) = [pair for pair in kinds if type(layer) is pair[0]]
    new = BinaryBlock(kind.of(layer, SIGN, SignInputs()), **{**dict.fromkeys(PARTS, True), **parts})
    new.initialize()
    with torch.no_grad():
        for part in (new.norm, new.activation):
            for values in (*part.parameters(), *(b for b in part.buffers() if b.is_floating_point())):
                values.uniform_(0.3, 1.7)
    return new


def along(vector: torch.Tensor, dimensions: int) -> Any:
    return vector.detach().numpy().reshape(-1, *[1] * (dimensions - 2))


def product(x: Any, new: BinaryBlock) -> Any:
    """The layer of signs, in NumPy."""
    w, b = signs_of(new.weight.detach().numpy()), along(new.bias, x.ndim)  # type: ignore[arg-type]
    if isinstance(new.layer, nn.Linear):
        return signs_of(x) @ w.T + new.bias.detach().numpy()  # type: ignore[union-attr]
    if isinstance(new.layer, nn.Conv2d):
        return convolution(signs_of(x), w, new.layer) + b
    wide = nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
    return convolution(signs_of(x)[:, :, None], w[:, :, None], wide)[:, :, 0] + b


def test_a_shift_adds_and_its_gradient_is_a_sum() -> None:
    shift, x, g = Shift(3).double(), torch.randn(2, 3, 4, 5).double(), torch.randn(2, 3, 4, 5).double()
    assert torch.equal(shift(x), x)
    nn.init.normal_(shift.bias)
    y = shift(x)
    assert np.array_equal(y.detach(), x.numpy() + along(shift.bias, 4))
    (y * g).sum().backward()
    assert shift.bias.grad is not None
    assert np.allclose(shift.bias.grad, g.numpy().sum((0, 2, 3)), **CLOSE)


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_rprelu_and_its_gradients(shape: tuple[int, ...]) -> None:
    """y = prelu(x - gamma) + zeta, with before = -gamma and after = zeta."""
    activation, x = RPReLU(3).double(), torch.randn(shape).double().requires_grad_()
    assert [p.tolist() for p in activation.parameters()] == [[0.25] * 3, [0.0] * 3, [0.0] * 3]
    for parameter in activation.parameters():
        nn.init.normal_(parameter)
    g, n = torch.randn(shape).double(), x.detach().numpy()
    slope, gamma, zeta = (
        along(v, len(shape)) for v in (activation.slope, -activation.before.bias, activation.after.bias)
    )
    y = activation(x)
    assert np.allclose(y.detach(), np.where(n > gamma, n - gamma, slope * (n - gamma)) + zeta, **CLOSE)
    (y * g).sum().backward()
    inner, axes = g.numpy() * np.where(n > gamma, 1, slope), (0, *range(2, len(shape)))
    assert x.grad is not None
    assert np.allclose(x.grad, inner, **CLOSE)
    wanted = (g.numpy() * np.minimum(n - gamma, 0)).sum(axes), inner.sum(axes), g.numpy().sum(axes)
    for parameter, expected in zip(activation.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        assert np.allclose(parameter.grad, expected, **CLOSE)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("missing", ["none", *PARTS])
def test_forward(name: str, training: bool, missing: str) -> None:
    """activation(layer(norm(x) + b) + x), with statistics of the batch in training."""
    new = block(name, **({} if missing == "none" else {missing: False})).train(training)
    x = torch.randn(LAYERS[name][1]).double()
    inner, dimensions = x.numpy(), x.dim()
    axes = (0, *range(2, dimensions))
    if missing != "normalize":
        norm = new.norm[0]
        if training:
            m, v = inner.mean(axes, keepdims=True), inner.var(axes, keepdims=True)
        else:
            m, v = along(norm.running_mean, dimensions), along(norm.running_var, dimensions)
        inner = (inner - m) / np.sqrt(v + norm.eps) * along(norm.weight, dimensions) + along(norm.bias, dimensions)
    if missing != "thresholds":
        inner = inner + along(new.norm[-1].bias, dimensions)
    expected = product(inner, new)
    if missing != "shortcut":
        expected = expected + x.numpy()
    if missing != "rprelu":
        activation = new.activation
        shifted = expected + along(activation.before.bias, dimensions)
        bent = np.where(shifted > 0, shifted, along(activation.slope, dimensions) * shifted)
        expected = bent + along(activation.after.bias, dimensions)
    # Inputs of the sign lie further from 0 than a rounding, or a sum would be off by 2.
    assert np.abs(inner).min() > 1e-9
    assert np.allclose(new(x).detach(), expected, **CLOSE)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("dense", (6,)), ("dense", (2, 3, 6)), ("dense", (2, 3, 4, 6)), ("one axis", (4, 4)), ("two axes", (4, 4, 4))],
)
def test_shapes_that_the_layer_takes_beside_a_batch(name: str, shape: tuple[int, ...]) -> None:
    """As many examples as there are in a batch. No axis is mistaken for the channels where their sizes are equal."""
    new, x = block(name).eval(), torch.randn(shape).double()
    kept = 1 if name == "dense" else x.dim()
    expected = new(x.reshape(-1, *shape[len(shape) - kept :])).reshape(shape)
    assert torch.allclose(new(x), expected, rtol=0, atol=1e-13)


def test_its_first_values_leave_the_layer_as_it_is() -> None:
    layer = nn.Conv2d(4, 4, 3, padding=1).double().requires_grad_(False)
    new = BinaryBlock(
        LowBitConv2d.of(layer, SIGN, SignInputs()), normalize=True, thresholds=True, shortcut=False, rprelu=True
    )
    assert new.norm[0].weight.is_meta
    new.initialize()
    assert [(n, v.unique().tolist()) for n, v in new.state_dict().items() if not n.startswith("layer")] == [
        ("norm.0.weight", [1.0]),
        ("norm.0.bias", [0.0]),
        ("norm.0.running_mean", [0.0]),
        ("norm.0.running_var", [1.0]),
        ("norm.0.num_batches_tracked", [0]),
        ("norm.1.bias", [0.0]),
        ("activation.slope", [0.25]),
        ("activation.before.bias", [0.0]),
        ("activation.after.bias", [0.0]),
    ]
    assert {p.dtype for p in new.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in new.parameters())
    assert new.layer.weight is layer.weight is new.weight
    assert new.bias is layer.bias


def test_gradients_reach_all_parts() -> None:
    new = block().train()
    new(torch.randn(3, 4, 5, 6).double()).square().sum().backward()
    for name, parameter in new.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("missing", ["none", *PARTS])
def test_round_trip_through_a_file(name: str, missing: str, tmp_path: Path) -> None:
    new = nn.Sequential(block(name, **({} if missing == "none" else {missing: False})))
    model = nn.Sequential(copy.deepcopy(LAYERS[name][0]).double())
    save_weights(new, tmp_path / "net.safetensors")
    loaded = load_weights(model, tmp_path / "net.safetensors")
    assert str(loaded) == str(new)
    x = torch.randn(LAYERS[name][1]).double()
    assert torch.equal(loaded.eval()(x), new.eval()(x))
    structure = json.loads(json.dumps(structure_of(new)))
    assert list(structure) == ["0", "0.layer"]
    restored = restore_structure(model, structure)
    assert structure_of(restored) == structure
    restored.load_state_dict(new.state_dict())
    assert torch.equal(restored.eval()(x), new(x))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.pop("layer"), "expected parts of a binary block"),
        (lambda d: d.update(layer=3), "expected parts of a binary block"),
        (lambda d: d.pop("normalize"), "expected parts of a binary block"),
        (lambda d: d.update(shortcut=1), "expected parts of a binary block"),
        (lambda d: d.update(rprelu=None), "expected parts of a binary block"),
        (lambda d: d["layer"].pop("kind"), "expected a layer of dense layer of few bits, convolution"),
        (lambda d: d["layer"].update(kind="binary block"), "expected a layer of .*, found 'binary block'"),
        (lambda d: d["layer"].update(kind=["dense layer of few bits"]), "expected a layer of"),
        (lambda d: d["layer"].pop("sizes"), "expected sizes inputs"),
        (lambda d: d["layer"]["sizes"].update(kernel=[3]), "expected sizes of a convolution"),
    ],
)
def test_damaged_descriptions(damage: Any, message: str) -> None:
    description = json.loads(json.dumps(block().describe()))
    assert BinaryBlock.from_description(description).describe() == description
    damage(description)
    with pytest.raises(FileFormatError, match=f"^structure: {message}"):
        BinaryBlock.from_description(description)


def test_layers_of_few_bits_are_found() -> None:
    new = nn.Sequential(block(), nn.Conv2d(4, 4, 1), nn.Sequential(block()))
    assert low_bit_layers(new) == [new[0].layer, new[2][0].layer]
