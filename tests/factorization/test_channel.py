"""SVD over output channels: the error of the matrix, and of outputs on calibration inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netopt import optimize
from netopt.factorization import ChannelSVD, Energy
from tests.factorization.methods import correlated, factored, handle


@pytest.mark.parametrize(
    ("layer", "columns"),
    [
        (nn.Conv2d(6, 8, 3), 54),
        (nn.Conv2d(6, 8, 1), 6),
        (nn.Conv2d(2, 30, (1, 3)), 6),
        (nn.Conv1d(6, 8, 5), 30),
    ],
)
def test_the_error_is_that_of_the_discarded_singular_values(layer: nn.Module, columns: int) -> None:
    layer = layer.double()
    energy = torch.linalg.svdvals(layer.weight.detach().flatten(1)).square()
    found = ChannelSVD(rank=1).decomposition(handle(layer))
    assert found.full == (min(len(layer.weight), columns),)
    for rank in range(1, found.full[0] + 1):
        lost = float(energy[rank:].sum() / energy.sum())
        assert found.error(found.build((rank,))) ** 2 == pytest.approx(lost, abs=1e-12)
        assert found.loss((rank,)) == pytest.approx(lost, abs=1e-12)


def test_transposed_convolutions_are_cut_over_their_inputs() -> None:
    layer = nn.ConvTranspose2d(8, 6, 3, stride=2).double()
    assert str(factored(ChannelSVD(rank=3), layer)) == "ChannelSVD(8 -> 3 [3 x 3] 6)"
    energy = torch.linalg.svdvals(layer.weight.detach().flatten(1)).square()
    found = ChannelSVD(rank=1).decomposition(handle(layer))
    assert found.error(found.build((3,))) ** 2 == pytest.approx(float(energy[3:].sum() / energy.sum()))
    assert str(factored(ChannelSVD(rank=3), nn.ConvTranspose2d(8, 6, 1))) == "ChannelSVD(8 -> 3 -> 6)"


def test_forms() -> None:
    assert str(factored(ChannelSVD(rank=2), nn.Conv2d(4, 6, (3, 5)))) == "ChannelSVD(4 [3 x 5] 2 -> 6)"
    assert str(factored(ChannelSVD(rank=2), nn.Conv2d(4, 6, 1))) == "ChannelSVD(4 -> 2 -> 6)"


def test_both_stages_are_of_one_size() -> None:
    for calibration in (None, torch.randn(4, 6, 9, 9, dtype=torch.float64)):
        layer = nn.Conv2d(6, 8, 3).double()
        built = optimize(layer, ChannelSVD(rank=5), keep_if="always", calibration=calibration).model
        norms = built.reduce.weight.flatten(1).norm(dim=1), built.expand.weight.flatten(1).norm(dim=0)
        torch.testing.assert_close(*norms, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 3])
def test_calibration_gives_the_least_error_of_the_outputs(kernel: int) -> None:
    """Eckart and Young, 1936, of the outputs at all places."""
    layer = nn.Conv2d(6, 8, kernel, bias=False).double()
    x = correlated(layer)
    with torch.no_grad():
        outputs = layer(x).transpose(0, 1).flatten(1)
    s = torch.linalg.svdvals(outputs)
    for rank in (1, 2, 4):
        row = optimize(layer, ChannelSVD(rank=rank), keep_if="always", calibration=x).report.rows[0]
        assert row.error == pytest.approx(float(s[rank:].norm() / s.norm()), rel=1e-3)
    kept = s.square().cumsum(0) / s.square().sum()
    by_energy = optimize(layer, ChannelSVD(rank=Energy(0.99), multiple=1), keep_if="always", calibration=x).model
    assert by_energy.stages[0].outputs == int((kept < 0.99).sum()) + 1
