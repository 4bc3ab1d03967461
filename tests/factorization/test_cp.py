"""CP of convolutions: known components, forms, ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from netopt import InvalidArgument, optimize
from netopt.factorization import CP, EVBMF, Budget, Energy
from tests.factorization.methods import component_norms, correlated, factored, handle, relative


def of_rank(layer: nn.Conv2d, rank: int, seed: int = 0) -> nn.Conv2d:
    """The layer with a kernel that is a sum of so many products."""
    generator = torch.Generator().manual_seed(seed)
    factors = [torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in layer.weight.shape]
    layer.weight.data = torch.einsum("tr,sr,ar,br->tsab", *factors)
    return layer


@pytest.mark.parametrize("rank", [1, 3])
def test_a_kernel_of_known_rank_is_found(rank: int) -> None:
    layer = of_rank(nn.Conv2d(7, 9, 3).double(), rank)
    built = factored(CP(rank=rank), layer)
    assert built is not None
    # Alternating least squares ends where a sweep gains a millionth of the error.
    assert relative(built.weight, layer.weight) < 1e-3
    three = factored(CP(rank=rank, ways=3), layer)
    assert three is not None
    assert relative(three.weight, layer.weight) < 1e-3


def test_forms() -> None:
    shown = lambda layer, ways=4: str(factored(CP(rank=3, ways=ways), layer))
    assert shown(nn.Conv2d(4, 6, 3)) == "CP(4 -> 3 [3 x 1] 3 [1 x 3] 3 -> 6)"
    assert shown(nn.Conv2d(4, 6, 3), 3) == "CP(4 -> 3 [3 x 3] 3 -> 6)"
    assert shown(nn.Conv2d(4, 6, 1)) == shown(nn.Conv2d(4, 6, 1), 3) == "CP(4 -> 3 -> 6)"
    assert shown(nn.Conv2d(4, 6, (1, 5))) == shown(nn.Conv2d(4, 6, (1, 5)), 3) == "CP(4 -> 3 [1 x 5] 3 -> 6)"
    assert shown(nn.Conv1d(4, 6, 5)) == "CP(4 -> 3 [5] 3 -> 6)"
    built = factored(CP(rank=3), nn.Conv2d(4, 6, 3, groups=2))
    assert built is not None
    assert [stage.groups for stage in built] == [2, 6, 6, 2]
    assert [stage.bias is not None for stage in built] == [False, False, False, True]


@pytest.mark.parametrize(
    ("layer", "ways", "full"),
    [
        (nn.Conv2d(4, 6, 3), 4, 4 * 9),
        (nn.Conv2d(4, 6, 3), 3, 4 * 6),
        (nn.Conv2d(4, 20, 3), 3, 4 * 9),
        (nn.Conv2d(4, 6, 1), 4, 4),
        (nn.Conv2d(8, 6, 3, groups=2), 4, 3 * 9),
        (nn.Conv1d(4, 6, 9), 4, 4 * 6),
    ],
)
def test_full_rank(layer: nn.Module, ways: int, full: int) -> None:
    assert CP(rank=1, ways=ways).decomposition(handle(layer)).full == (full,)


def test_components_do_not_cancel_each_other() -> None:
    """A published implementation leaves them to grow, and must be trained at a rate of 1e-6."""
    layer = nn.Conv2d(12, 16, 3).double()
    built = factored(CP(rank=20), layer)
    assert built is not None
    reduce, vertical, horizontal, expand = (stage.weight.detach() for stage in built)
    factors = [expand.flatten(1), reduce.flatten(1).T, vertical.flatten(1).T, horizontal.flatten(1).T]
    size = component_norms(factors).square().sum() / layer.weight.detach().square().sum()
    assert size < 10
    # All columns of a component have one norm, so that all gradients are of one size.
    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    torch.testing.assert_close(norms, norms[:1].expand(4, -1), rtol=1e-6, atol=1e-9)


def test_the_seed_decides() -> None:
    layer = nn.Conv2d(8, 10, 3)
    weights = [factored(CP(rank=6, seed=seed), layer).weight for seed in (0, 0, 1)]  # type: ignore[union-attr]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_energy_by_bisection() -> None:
    layer = of_rank(nn.Conv2d(7, 9, 3).double(), 2)
    found = CP(rank=1).decomposition(handle(layer))
    (rank,) = found.at_energy(0.9)
    assert 1 <= rank <= 3
    assert found.loss((rank,)) <= 0.1
    assert optimize(layer, CP(rank=Energy(0.9), multiple=1)).model.stages[1].groups == rank


def test_evbmf_takes_the_larger_of_both_modes() -> None:
    layer = of_rank(nn.Conv2d(24, 32, 3).double(), 4)
    layer.weight.data += 0.05 * torch.randn(layer.weight.shape, dtype=torch.float64)
    row = optimize(layer, CP(rank=EVBMF(), multiple=1)).report.rows[0]
    assert row.reason.endswith("EVBMF rank 4")


def test_budgets_look_at_few_ranks() -> None:
    found = CP(rank=1).decomposition(handle(nn.Conv2d(64, 96, 3)))
    ranks = [rank for (rank,) in found.grid(16)]
    assert 2 < len(ranks) <= 6 and all(rank % 16 == 0 for rank in ranks)
    # 64 + 3 + 3 + 96 weights a component, of 64 x 96 x 9: from about a ninth to 0.7 of the rank that saves nothing.
    assert 0.6 * 55296 / 166 < max(ranks) <= 0.7 * 55296 / 166
    assert min(ranks) < 0.13 * 55296 / 166
    small = CP(rank=1).decomposition(handle(nn.Conv2d(3, 4, 3)))
    assert all(1 <= rank <= 9 for (rank,) in small.grid(16))
    result = optimize(nn.Conv2d(16, 24, 3), CP(rank=Budget(parameters=0.4), multiple=4))
    assert result.report.rows[0].after.parameters <= 0.4 * (16 * 24 * 9 + 24)


def test_calibration_at_full_quality() -> None:
    layer = nn.Conv2d(6, 8, 3).double()
    x = correlated(layer)
    plain, aware = (optimize(layer, CP(rank=4), calibration=c, keep_if="always").model for c in (None, x))
    with torch.no_grad():
        size = layer(x) - layer.bias.view(-1, 1, 1)
        errors = [float((model(x) - layer(x)).norm() / size.norm()) for model in (plain, aware)]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("ways", [2, 5, 4.5, "4"])
def test_ways(ways: object) -> None:
    with pytest.raises(InvalidArgument, match="ways: expected 3 or 4"):
        CP(rank=3, ways=ways)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1 << 63, 0.5, True, "1", None])
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"seed: expected an integer from 0 to 2\^63 - 1, found "):
        CP(rank=1, seed=seed)


@pytest.mark.parametrize("ways", [2, 3.0, True, "4", None])
def test_ways_that_are_none(ways: Any) -> None:
    with pytest.raises(InvalidArgument, match="ways: expected 3 or 4, found "):
        CP(rank=1, ways=ways)
