"""Tucker-2: the HOSVD bound, TensorLy's answer, and the forms that a replacement takes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from tensorly import backend_context, get_backend
from tensorly.decomposition import partial_tucker
from torch import nn

from netopt import NetoptError, optimize
from netopt.factorization import FactoredConv, Tucker
from netopt.factorization.tensorly_calls import tucker_factors
from tests.factorization.methods import correlated, factored, handle, relative


def shown(layer: nn.Module, **options: object) -> str:
    return str(factored(Tucker(**options), layer))  # type: ignore[arg-type]


def energy(kernel: torch.Tensor, mode: int) -> torch.Tensor:
    return torch.linalg.svdvals(kernel.detach().transpose(0, mode).flatten(1)).square()


def test_the_error_is_that_of_tensorly() -> None:
    layer = nn.Conv2d(10, 12, 3).double()
    with backend_context("numpy"):
        kernel = layer.weight.detach().numpy()
        (core, (u, v)), _ = partial_tucker(kernel, rank=[5, 4], modes=[0, 1], init="svd", tol=1e-4, n_iter_max=25)
    expected = np.einsum("abij,ta,sb->tsij", core, u, v)
    built = factored(Tucker(rank=(5, 4)), layer)
    assert built is not None
    assert relative(built.weight, torch.from_numpy(expected)) < 1e-12
    assert [stage.weight.numel() for stage in built] == [40, 5 * 4 * 9, 60]


def test_the_error_is_between_the_bounds_of_the_higher_order_svd() -> None:
    """De Lathauwer et al., 2000: at least what the worse mode loses alone, at most what both lose."""
    layer = nn.Conv2d(10, 12, 3).double()
    found = Tucker(rank=1).decomposition(handle(layer))
    for ranks in ((5, 4), (3, 9), (12, 4), (5, 10), (1, 1)):
        lost = [float(energy(layer.weight, mode)[rank:].sum()) for mode, rank in enumerate(ranks)]
        total = float(layer.weight.detach().square().sum())
        squared = found.error(found.build(ranks)) ** 2
        assert max(lost) / total - 1e-12 <= squared <= sum(lost) / total + 1e-12
        assert found.loss(ranks) == pytest.approx(min(1.0, sum(lost) / total))


@pytest.mark.parametrize(("ranks", "mode"), [((5, 10), 0), ((12, 4), 1)])
def test_one_mode_alone_is_cut_as_well_as_can_be(ranks: tuple[int, int], mode: int) -> None:
    layer = nn.Conv2d(10, 12, 3).double()
    built = factored(Tucker(rank=ranks), layer)
    assert built is not None
    values = energy(layer.weight, mode)
    assert relative(built.weight, layer.weight) ** 2 == pytest.approx(float(values[ranks[mode] :].sum() / values.sum()))


def test_full_ranks_need_no_convolution_of_their_own() -> None:
    layer = nn.Conv2d(4, 6, 3)
    assert shown(layer, rank=(3, 2)) == "Tucker(4 -> 2 [3 x 3] 3 -> 6)"
    assert shown(layer, rank=(3, 4)) == "Tucker(4 [3 x 3] 3 -> 6)"
    assert shown(layer, rank=(6, 2)) == "Tucker(4 -> 2 [3 x 3] 6)"
    assert shown(layer, rank=(6, 4)) == "Tucker(4 [3 x 3] 6)"
    assert shown(layer, rank=5) == "Tucker(4 [3 x 3] 5 -> 6)"
    built = factored(Tucker(rank=5), layer)
    assert isinstance(built, FactoredConv) and built.core.bias is None and built.expand.bias is not None
    assert optimize(layer, Tucker(rank=(6, 4))).report.rows[0].reason.startswith("saves nothing")


def test_ranks_that_the_other_mode_and_the_kernel_cannot_fill() -> None:
    """2 channels in 9 places are 18 numbers: a core with more than 18 outputs is a waste."""
    layer = nn.Conv2d(3, 64, 3).double()
    assert shown(layer, rank=(40, 2)) == "Tucker(3 -> 2 [3 x 3] 18 -> 64)"
    assert shown(layer, rank=(40, 3)) == "Tucker(3 [3 x 3] 27 -> 64)"
    assert shown(nn.Conv2d(64, 3, 3), rank=(1, 30)) == "Tucker(64 -> 9 [3 x 3] 1 -> 3)"
    assert shown(layer, rank=(64, 2)) == "Tucker(3 -> 2 [3 x 3] 64)"
    lowered, asked = (factored(Tucker(rank=ranks), layer) for ranks in ((18, 2), (40, 2)))
    assert lowered is not None and asked is not None
    assert relative(lowered.weight, asked.weight) < 1e-12
    exact = factored(Tucker(rank=(40, 3)), layer)
    assert exact is not None
    assert relative(exact.weight, layer.weight) < 1e-12


def test_pointwise_convolutions_are_matrices() -> None:
    layer = nn.Conv2d(10, 12, 1).double()
    built = factored(Tucker(rank=(4, 7)), layer)
    assert str(built) == "Tucker(10 -> 4 -> 12)"
    assert built is not None
    s = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    assert relative(built.weight, layer.weight) == pytest.approx(float(s[4:].norm() / s.norm()))


def test_partial_factors() -> None:
    tensor = torch.randn(6, 5, 3, dtype=torch.float64)
    core, (u,) = tucker_factors(tensor, {0: 2})
    assert (core.shape, u.shape) == ((2, 5, 3), (6, 2))
    torch.testing.assert_close(u.T @ u, torch.eye(2, dtype=torch.float64))
    core, factors = tucker_factors(tensor, {})
    assert torch.equal(core, tensor) and factors == []
    assert core.data_ptr() != tensor.data_ptr()
    core, (u, v) = tucker_factors(torch.zeros(6, 5, 3), {0: 2, 1: 4})
    assert (core.shape, u.shape, v.shape) == ((2, 4, 3), (6, 2), (5, 4))
    assert not core.any()


def test_the_users_backend_of_tensorly_is_left_alone() -> None:
    with backend_context("pytorch"):
        factored(Tucker(rank=2), nn.Conv2d(4, 6, 3))
        assert get_backend() == "pytorch"


def test_without_tensorly_the_message_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorly", None)
    with pytest.raises(NetoptError, match=r"tensorly is not installed; pip install 'netopt\[factorization\]'"):
        factored(Tucker(rank=2), nn.Conv2d(4, 6, 3))


@pytest.mark.parametrize("ranks", [(7, 2), (3, 2), (3, 5)])
def test_a_fit_to_calibration_inputs_is_not_worse_than_any_change_of_the_last_stage(ranks: tuple[int, int]) -> None:
    """Which is the core, where the outputs are not cut."""
    layer = nn.Conv2d(5, 7, (3, 2), stride=(2, 1), padding=(1, 2)).double()
    x = correlated(layer)
    built = optimize(layer, Tucker(rank=ranks), keep_if="always", calibration=x).model
    (built(x) - layer(x).detach()).square().mean().backward()
    last = built[-1].weight
    # At a minimum the gradient is 0; moments are sums in float32.
    assert last.grad.norm() * last.norm() < 1e-4 * layer(x).square().mean()
