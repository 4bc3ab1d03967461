"""The rank by variational Bayes, against matrices of known rank and a second way to compute it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import NetoptError
from netopt.factorization.evbmf import evbmf_rank


def noisy(m: int, n: int, rank: int, noise: float, seed: int = 0) -> torch.Tensor:
    """A product of Gaussian factors, whose numbers are of size sqrt(rank), plus Gaussian noise."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(m, rank, generator=generator, dtype=torch.float64)
    v = torch.randn(rank, n, generator=generator, dtype=torch.float64)
    return u @ v + noise * torch.randn(m, n, generator=generator, dtype=torch.float64)


def published(matrix: np.ndarray) -> int:
    """The rank as the scripts in circulation write it, with the variance from a fine grid; for m <= n.

    Nakajima et al., 2013: the free energy in terms of x = gamma^2 / (M variance), split at the threshold.
    """
    rows, columns = matrix.shape
    alpha = rows / columns
    tau_bar = 2.5129 * np.sqrt(alpha)
    x_bar = (1 + tau_bar) * (1 + alpha / tau_bar)
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    limit = int(np.ceil(rows / (1 + alpha))) - 1
    low = max(squares[limit] / (columns * x_bar), squares[limit:].mean() / columns)
    variances = np.geomspace(low, squares.sum() / (rows * columns), 5000)
    energies = []
    for variance in variances:
        x = squares / (columns * variance)
        z1, z2 = x[x > x_bar], x[x <= x_bar]
        tau = 0.5 * (z1 - (1 + alpha) + np.sqrt((z1 - (1 + alpha)) ** 2 - 4 * alpha))
        energy = (z2 - np.log(z2)).sum() + (z1 - tau).sum()
        energies.append(energy + np.log((tau + 1) / z1).sum() + alpha * np.log(tau / alpha + 1).sum())
    return int((squares > columns * variances[np.argmin(energies)] * x_bar).sum())


@pytest.mark.parametrize(
    ("m", "n", "rank", "noise"),
    [
        (64, 27, 5, 0.1),
        (100, 100, 20, 0.1),
        (50, 400, 10, 0.1),
        (64, 576, 16, 1e-3),
        (8, 8, 1, 0.1),
        (128, 96, 30, 0.5),
    ],
)
def test_the_rank_under_noise_is_found(m: int, n: int, rank: int, noise: float) -> None:
    assert evbmf_rank(noisy(m, n, rank, noise)) == rank


@pytest.mark.parametrize(("m", "n"), [(64, 64), (64, 27), (27, 64), (30, 300), (3, 5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pure_noise_has_rank_0(m: int, n: int, seed: int) -> None:
    assert evbmf_rank(noisy(m, n, 0, 1.0, seed)) == 0


def test_orientation_does_not_matter() -> None:
    """Published scripts demand m <= n, and fail for an unfolded kernel of 64 x 27."""
    matrix = noisy(64, 27, 6, 0.5, seed=3)
    assert evbmf_rank(matrix) == evbmf_rank(matrix.T) == 6


@settings(max_examples=25, derandomize=True, deadline=None)
@given(m=st.integers(2, 24), n=st.integers(2, 24), seed=st.integers(0, 99), data=st.data())
def test_agreement_with_the_published_form(m: int, n: int, seed: int, data: st.DataObject) -> None:
    """Also the limit ceil(m n / (m + n)), and independence of scale (a power of 2, which rounds nothing)."""
    matrix = noisy(m, n, data.draw(st.integers(0, min(m, n))), data.draw(st.sampled_from([0.03, 0.3, 3.0])), seed)
    rank = evbmf_rank(matrix)
    assert rank == published((matrix if m <= n else matrix.T).numpy())
    assert rank < -(-m * n // (m + n))
    assert evbmf_rank(matrix * 2.0**-400) == evbmf_rank(matrix * 2.0**400) == rank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "n", "rank"), [(30, 30, 5), (30, 30, 14), (64, 27, 7), (40, 400, 1)])
def test_without_noise_rounding_is_not_taken_for_rank(m: int, n: int, rank: int, dtype: torch.dtype) -> None:
    """Its singular values vary too much for Gaussian noise."""
    assert evbmf_rank(noisy(m, n, rank, 0.0).to(dtype)) == rank


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    outs=st.integers(12, 80),
    ins=st.integers(12, 80),
    area=st.sampled_from([1, 4, 9]),
    rank=st.integers(1, 4),
    unevenness=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_the_rank_of_a_kernel_without_noise(
    outs: int, ins: int, area: int, rank: int, unevenness: float, seed: int, dtype: torch.dtype
) -> None:
    """What rounding leaves is larger in large rows, and no Gaussian noise; the numbers are given in float64."""
    random = torch.Generator().manual_seed(seed)
    t, s, k = (torch.randn(n, rank, generator=random, dtype=dtype) for n in (outs, ins, area))
    t *= torch.exp(unevenness * torch.randn(outs, 1, generator=random, dtype=dtype))
    kernel = torch.einsum("tr,sr,kr->tsk", t, s, k).double()
    assert evbmf_rank(kernel.flatten(1), dtype) == rank
    assert evbmf_rank(kernel.transpose(0, 1).flatten(1), dtype) == rank


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("unevenness", [0.0, 1.0])
def test_the_rank_of_a_matrix_in_half_precision(dtype: torch.dtype, unevenness: float) -> None:
    matrix = noisy(64, 144, 3, 0.0)
    matrix *= torch.exp(unevenness * torch.randn(64, 1, generator=torch.Generator().manual_seed(1)))
    assert evbmf_rank(matrix.to(dtype)) == evbmf_rank(matrix.to(dtype).double(), dtype) == 3


def test_noise_above_that_of_rounding_is_found_as_before() -> None:
    """A hundred times float32's rounding, in numbers that are known to float32."""
    assert evbmf_rank(noisy(64, 144, 5, 1e-5), torch.float32) == 5


def test_exact_zeros_in_the_spectrum() -> None:
    assert evbmf_rank(torch.diag(torch.tensor([3.0, 2.0, 0.0, 0.0, 0.0, 0.0]))) == 2


def test_matrices_that_tell_nothing() -> None:
    """Zeros; a row or a column, which leave no singular value to estimate the noise from; an identity."""
    assert evbmf_rank(torch.zeros(4, 5)) == 0
    assert evbmf_rank(torch.ones(1, 9)) == evbmf_rank(torch.ones(9, 1)) == evbmf_rank(torch.ones(1, 1)) == 0
    assert evbmf_rank(torch.eye(6)) == 0


@pytest.mark.parametrize(
    ("spectrum", "columns", "rank"),
    [
        ([100.0, 10.0, 1.0, 1.0, 0.01, 0.001], 13, 2),
        ([100.0, 100.0, 1.0, 0.1, 0.01, 0.01, 0.001], 58, 4),
        ([1e4] * 4 + [1e2] * 6 + [1.2 - 0.01 * i for i in range(40)], 60, 10),
    ],
)
def test_the_lowest_of_several_minima(spectrum: list[float], columns: int, rank: int) -> None:
    """The free energy has a minimum wherever the noise may begin; from a few points, a search ends at 4 or 6."""
    matrix = torch.zeros(len(spectrum), columns, dtype=torch.float64)
    matrix[:, : len(spectrum)] = torch.tensor(spectrum).diag()
    assert evbmf_rank(matrix) == published(matrix.numpy()) == rank


def test_the_matrix_and_the_random_state_are_left_alone() -> None:
    matrix = noisy(20, 12, 3, 0.1).requires_grad_()
    before, state = matrix.detach().clone(), torch.get_rng_state()
    assert evbmf_rank(matrix) == 3
    assert torch.equal(matrix, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(NetoptError, match=r"scipy is not installed; pip install 'netopt\[factorization\]'"):
        evbmf_rank(torch.ones(3, 4))
