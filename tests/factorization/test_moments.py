"""Second moments of inputs, against sums written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from netopt import InvalidArgument, Layer
from netopt.factorization import moments
from netopt.factorization.geometry import Geometry
from netopt.factorization.moments import (
    channel_moment,
    fitted,
    moment_of_dense,
    moments_of_patches,
    relative_error,
    roots,
)
from tests.factorization.methods import CONV1D, CONV2D, LAYERS, handle, inputs_of

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def layer_with(module: nn.Module, *batches: torch.Tensor) -> Layer:
    return Layer("conv", module, True, True, calibration=lambda: iter(batches))


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", [*CONV2D, *CONV1D])
def test_moments_are_those_of_what_the_kernel_sees(name: str) -> None:
    """A kernel of one at one weight, and zeros elsewhere, shows what the layer multiplies by that weight."""
    layer = LAYERS[name]().double()
    layer.bias = None
    x, geometry = inputs_of(layer), Geometry.of(layer)
    found = moments_of_patches(layer_with(layer, x[:1], x[1:]), geometry)
    assert found is not None
    outs, size = layer.out_channels // layer.groups, layer.weight[0].numel()
    assert [moment.shape for moment in found] == [(size, size)] * layer.groups
    seen = []
    for place in range(size):
        with torch.no_grad():
            layer.weight.flatten(1).zero_()[:, place] = 1
            seen.append(layer(x)[:, ::outs].transpose(0, 1).flatten(1))  # (groups, places)
    patches = torch.stack(seen, dim=1)
    expected = patches @ patches.transpose(1, 2) / patches.shape[2]
    # Summed in float32.
    torch.testing.assert_close(torch.stack(found), expected, rtol=1e-4, atol=1e-5)


def test_moment_of_a_dense_layers_inputs() -> None:
    x, y = gaussian(5, 3, 7), gaussian(7, seed=1)
    found = moment_of_dense(layer_with(nn.Linear(7, 2), x, y))
    rows = torch.cat([x.flatten(0, 1), y[None]])
    assert found is not None
    assert found.dtype is torch.float64
    torch.testing.assert_close(found, rows.T @ rows / 16, rtol=1e-5, atol=1e-6)


def test_no_moments_without_calibration_or_of_transposed_convolutions() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3)
    assert moments_of_patches(layer_with(layer, inputs_of(layer)), Geometry.of(layer)) is None
    conv = nn.Conv2d(4, 6, 3)
    assert moments_of_patches(Layer("conv", conv, True, True), Geometry.of(conv)) is None
    assert moment_of_dense(Layer("fc", nn.Linear(3, 2), True, True)) is None


def test_large_inputs_are_looked_at_in_places(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(2, 3, 3)
    x = inputs_of(layer, batch=3)  # 9 x 11 places each
    rows = []
    product = moments._mean_product

    def count(samples: Any, layer: Layer) -> torch.Tensor:
        kept = list(samples)
        rows.append(sum(sample.shape[1] for sample in kept))
        return product(iter(kept), layer)

    monkeypatch.setattr(moments, "_mean_product", count)
    monkeypatch.setattr(moments, "_PLACES", 100)
    sampled = moments_of_patches(layer_with(layer, x), Geometry.of(layer))
    monkeypatch.setattr(moments, "_PLACES", 1000)
    whole = moments_of_patches(layer_with(layer, x), Geometry.of(layer))
    assert rows == [3 * 50, 297]
    assert sampled is not None and whole is not None
    # Of 150 places instead of 297: equal but for chance, of which 1 / sqrt(150) is 0.08.
    assert (sampled[0] - whole[0]).abs().max() < 0.3
    assert not torch.equal(sampled[0], whole[0])


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        (lambda: (), "inputs for which the layer is called, found none"),
        (lambda: (torch.full((1, 2, 5, 5), float("nan")),), "finite inputs of the layer, found others"),
        (lambda: (torch.full((1, 2, 5, 5), float("inf")),), "finite inputs of the layer, found others"),
    ],
)
def test_inputs_that_cannot_be_used(batches: Callable[[], tuple[torch.Tensor, ...]], expected: str) -> None:
    layer = nn.Conv2d(2, 3, 3)
    with pytest.raises(InvalidArgument, match=f"layer 'conv': calibration: expected {expected}"):
        moments_of_patches(layer_with(layer, *batches()), Geometry.of(layer))


def test_moment_of_channels() -> None:
    patches = gaussian(50, 3, 4)
    moment = patches.flatten(1).T @ patches.flatten(1) / 50
    expected = torch.stack([patches[:, :, place].T @ patches[:, :, place] / 50 for place in range(4)]).mean(0)
    torch.testing.assert_close(channel_moment(moment, 4), expected)


def test_roots() -> None:
    x = gaussian(40, 6)
    moment = x.T @ x / 40
    root, inverse = roots(moment)
    torch.testing.assert_close(root @ inverse, torch.eye(6, dtype=torch.float64))
    # The floor, a thousandth of the mean, is added to all eigenvalues.
    floor = 1e-3 * moment.trace() / 6 * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(root @ root, moment + floor)
    singular = torch.outer(x[0], x[0])
    root, inverse = roots(singular)
    assert torch.isfinite(inverse).all()
    torch.testing.assert_close(root @ inverse, torch.eye(6, dtype=torch.float64))
    assert all(torch.equal(part, torch.eye(6, dtype=torch.float64)) for part in roots(torch.zeros_like(moment)))


def test_fit_is_the_least_squares_solution() -> None:
    x, weight, features = gaussian(60, 9), gaussian(5, 9, seed=1), gaussian(3, 9, seed=2)
    found = fitted(weight, x.T @ x / 60, features)
    expected = torch.linalg.lstsq(x @ features.T, x @ weight.T).solution.T
    torch.testing.assert_close(found, expected)


def test_fit_to_features_that_depend_on_each_other_is_the_least() -> None:
    x, weight, features = gaussian(60, 9), gaussian(5, 9, seed=1), gaussian(2, 9, seed=2)
    twice = torch.cat([features, features])
    found = fitted(weight, x.T @ x / 60, twice)
    torch.testing.assert_close(found[:, :2], found[:, 2:])
    torch.testing.assert_close(found @ twice, fitted(weight, x.T @ x / 60, features) @ features)


def test_relative_error_is_that_of_the_outputs() -> None:
    x, weight, other = gaussian(60, 9), gaussian(5, 9, seed=1), gaussian(5, 9, seed=2)
    wrong, size = relative_error(weight, other, x.T @ x)
    assert wrong == pytest.approx(float((x @ (weight - other).T).square().sum()))
    assert size == pytest.approx(float((x @ weight.T).square().sum()))
    wrong, size = relative_error(weight, other, None)
    assert (wrong, size) == pytest.approx((float((weight - other).square().sum()), float(weight.square().sum())))


@pytest.mark.parametrize("number", [1, 2047, 2048, 5000])
def test_moments_of_many_small_samples_are_those_of_all_rows(number: int) -> None:
    """They are multiplied some thousands of rows at a time."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(number, 3, generator=generator)
    layer = nn.Linear(3, 2)
    moment = moment_of_dense(handle(layer, calibration=lambda: iter(x.split(1))))
    assert moment is not None
    torch.testing.assert_close(moment, x.double().T @ x.double() / number, rtol=1e-5, atol=1e-5)
