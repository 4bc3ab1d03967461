"""Spatial SVD: the error of the matrix of rows and columns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netopt import optimize
from netopt.factorization import Budget, SpatialSVD
from tests.factorization.methods import correlated, factored, handle, relative


def spectrum(layer: nn.Conv2d) -> torch.Tensor:
    """Of the matrix of T kw rows and S kh columns."""
    weight = layer.weight.detach().double()
    t, s, kh, kw = weight.shape
    return torch.linalg.svdvals(weight.permute(0, 3, 1, 2).reshape(t * kw, s * kh)).square()


@pytest.mark.parametrize("kernel", [(3, 3), (2, 5), (5, 1), (1, 5), (1, 1)])
def test_the_error_is_that_of_the_discarded_singular_values(kernel: tuple[int, int]) -> None:
    layer = nn.Conv2d(6, 8, kernel).double()
    energy = spectrum(layer)
    found = SpatialSVD(rank=1).decomposition(handle(layer))
    assert found.full == (min(6 * kernel[0], 8 * kernel[1]),)
    for rank in range(1, found.full[0] + 1, 3):
        lost = float(energy[rank:].sum() / energy.sum())
        assert found.error(found.build((rank,))) ** 2 == pytest.approx(lost, abs=1e-12)
        assert found.loss((rank,)) == pytest.approx(lost, abs=1e-12)


def test_separable_filters_are_of_rank_one() -> None:
    layer = nn.Conv2d(1, 1, 5).double()
    blur = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=torch.float64)
    layer.weight.data = torch.outer(blur, blur)[None, None]
    built = factored(SpatialSVD(rank=1), layer)
    assert built is not None
    assert relative(built.weight, layer.weight) < 1e-12
    torch.testing.assert_close(built.vertical.weight.flatten().abs(), blur)
    torch.testing.assert_close(built.horizontal.weight.flatten().abs(), blur)


def test_both_stages_are_of_one_size() -> None:
    built = factored(SpatialSVD(rank=5), nn.Conv2d(6, 8, 3).double())
    assert built is not None
    vertical, horizontal = built.vertical.weight.detach(), built.horizontal.weight.detach()
    torch.testing.assert_close(vertical.flatten(1).norm(dim=1), horizontal.transpose(0, 1).flatten(1).norm(dim=1))


@pytest.mark.parametrize(
    ("layer", "title"),
    [
        (nn.Conv2d(4, 6, (3, 5)), "SpatialSVD(4 [3 x 1] 2 [1 x 5] 6)"),
        (nn.Conv2d(4, 6, (3, 1)), "SpatialSVD(4 [3 x 1] 2 -> 6)"),
        (nn.Conv2d(4, 6, (1, 3)), "SpatialSVD(4 -> 2 [1 x 3] 6)"),
        (nn.Conv2d(4, 6, 1), "SpatialSVD(4 -> 2 -> 6)"),
        (nn.ConvTranspose2d(4, 6, (3, 5), stride=2), "SpatialSVD(4 [3 x 1] 2 [1 x 5] 6)"),
    ],
)
def test_forms(layer: nn.Module, title: str) -> None:
    assert str(factored(SpatialSVD(rank=2), layer)) == title


def test_groups_share_a_rank_and_a_spectrum() -> None:
    layer = nn.Conv2d(6, 8, 3, groups=2).double()
    found = SpatialSVD(rank=1).decomposition(handle(layer))
    assert found.error(found.build((4,))) ** 2 == pytest.approx(found.loss((4,)))


def test_a_fit_to_calibration_inputs_is_not_worse_than_any_change_of_the_second_stage() -> None:
    layer = nn.Conv2d(5, 7, 3, stride=2, padding=(1, 2)).double()
    x = correlated(layer)
    built = optimize(layer, SpatialSVD(rank=2), keep_if="always", calibration=x).model
    built.zero_grad()
    (built(x) - layer(x).detach()).square().mean().backward()
    gradient = built.horizontal.weight.grad.norm() * built.horizontal.weight.norm()
    # At a minimum; moments are sums in float32.
    assert gradient < 1e-4 * layer(x).square().mean()


def test_a_budget() -> None:
    layer = nn.Conv2d(24, 32, 3)
    result = optimize(layer, SpatialSVD(rank=Budget(parameters=0.5), multiple=4))
    row = result.report.rows[0]
    # 3 x (24 + 32) weights a rank, in steps of 4.
    assert 0.5 * row.before.parameters - 4 * 168 < row.after.parameters <= 0.5 * row.before.parameters
