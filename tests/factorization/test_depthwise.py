"""SVD of each input channel's kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netopt import optimize
from netopt.factorization import DepthwiseSVD
from tests.factorization.methods import correlated, factored, handle, relative


def spectra(layer: nn.Conv2d) -> torch.Tensor:
    """Of each input channel, (channels, singular values), squared."""
    return torch.linalg.svdvals(layer.weight.detach().double().flatten(2).transpose(0, 1)).square()


@pytest.mark.parametrize("kernel", [(3, 3), (2, 5), (1, 4)])
def test_the_error_is_that_of_the_discarded_singular_values(kernel: tuple[int, int]) -> None:
    layer = nn.Conv2d(5, 7, kernel).double()
    energy = spectra(layer)
    found = DepthwiseSVD(rank=1).decomposition(handle(layer))
    assert found.full == (min(7, kernel[0] * kernel[1]),)
    for rank in range(1, found.full[0] + 1):
        lost = float(energy[:, rank:].sum() / energy.sum())
        assert found.error(found.build((rank,))) ** 2 == pytest.approx(lost, abs=1e-12)
        assert found.loss((rank,)) == pytest.approx(lost, abs=1e-12)


def test_a_separable_convolution_is_of_rank_one() -> None:
    layer = nn.Conv2d(5, 7, 3).double()
    depthwise, pointwise = torch.randn(5, 3, 3, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    layer.weight.data = pointwise[:, :, None, None] * depthwise
    built = factored(DepthwiseSVD(rank=1), layer)
    assert built is not None
    assert relative(built.weight, layer.weight) < 1e-12
    assert [(stage.weight.shape, stage.groups) for stage in built] == [((5, 1, 3, 3), 5), ((7, 5, 1, 1), 1)]


def test_forms() -> None:
    assert str(factored(DepthwiseSVD(rank=2), nn.Conv2d(4, 6, 3))) == "DepthwiseSVD(4 [3 x 3] 8 -> 6)"
    assert str(factored(DepthwiseSVD(rank=2), nn.Conv1d(4, 6, 3, groups=2))) == "DepthwiseSVD(4 [3] 8 -> 6)"


def test_ranks_are_not_rounded() -> None:
    row = optimize(nn.Conv2d(8, 40, 5), DepthwiseSVD(rank=0.2)).report.rows[0]
    assert row.reason == "DepthwiseSVD(8 [5 x 5] 40 -> 40)"


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(4, 6, 1), "a 1 x 1 kernel has nothing to separate"),
        (nn.Conv1d(4, 6, 1), "a 1 x 1 kernel has nothing to separate"),
        (nn.Conv2d(4, 8, 3, groups=4), "is depthwise already"),
    ],
)
def test_layers_left_alone(layer: nn.Module, reason: str) -> None:
    (row,) = optimize(layer, DepthwiseSVD(rank=1), keep_if="always").report.rows
    assert (row.replaced, row.reason) == (False, reason)


def test_transposed_convolutions_are_no_candidates() -> None:
    assert optimize(nn.ConvTranspose2d(4, 6, 3), DepthwiseSVD(rank=1)).report.rows == ()


def test_calibration_uses_what_each_channel_sees() -> None:
    """Inputs constant over the image: a kernel of any rank acts as its sum, and rank 1 is exact."""
    layer = nn.Conv2d(5, 7, 3).double()
    x = torch.randn(60, 5, 1, 1, dtype=torch.float64).expand(60, 5, 5, 5).contiguous()
    rows = [optimize(layer, DepthwiseSVD(rank=1), keep_if="always", calibration=c).report.rows[0] for c in (None, x)]
    assert rows[0].error > 0.5
    assert rows[1].error < 1e-3


def test_calibration_lowers_the_error() -> None:
    layer = nn.Conv2d(5, 7, 3).double()
    errors = []
    for calibration in (None, correlated(layer)):
        built = optimize(layer, DepthwiseSVD(rank=1), keep_if="always", calibration=calibration).model
        with torch.no_grad():
            errors.append(relative(built(correlated(layer)), layer(correlated(layer))))
    assert errors[1] < 0.8 * errors[0]


def test_calibration_of_channels_that_do_not_depend_on_each_other_is_the_best_of_each() -> None:
    """The error is what each channel loses, by its singular values with the moment of its patches."""
    layer = nn.Conv2d(3, 8, 3).double()
    x = torch.randn(40, 3, 14, 14, dtype=torch.float64).cumsum(3) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)
    x = x - x.mean((0, 2, 3), keepdim=True)
    found = DepthwiseSVD(rank=1).decomposition(handle(layer, calibration=lambda: iter([x])))
    for rank in (1, 2, 3):
        squared = found.error(found.build((rank,))) ** 2
        # The roots have a floor, a thousandth of the mean; the fit uses what channels have in common by chance.
        assert 0.5 * found.loss((rank,)) < squared < 1.02 * found.loss((rank,))
