"""Canonical polyadic decomposition: errors against known tensors and TensorLy, and components that stay small."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.factorization import cp_als
from netopt.factorization.cp_als import cp_error, cp_factors, cp_tensor
from tests.factorization.methods import component_norms


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank(*shape: int, rank: int, seed: int = 0) -> torch.Tensor:
    return cp_tensor([gaussian(n, rank, seed=seed + mode) for mode, n in enumerate(shape)])


def size(tensor: torch.Tensor, factors: list[torch.Tensor]) -> float:
    """Sum of the squared norms of the components, over the squared norm of the tensor."""
    return float(component_norms(factors).square().sum() / tensor.square().sum())


def degenerate() -> torch.Tensor:
    """a a b + a b a + b a a, of rank 3 and border rank 2: rank 2 comes as close as one likes, with norms that explode.

    de Silva and Lim, "Tensor rank and the ill-posedness of the best low-rank approximation problem", 2008.
    """
    a, b = torch.eye(4, dtype=torch.float64)[:2]
    return sum(
        (torch.einsum("i,j,k->ijk", *three) for three in ((a, a, b), (a, b, a), (b, a, a))), torch.zeros(4, 4, 4)
    )


# --- products and norms


def test_the_tensor_of_its_factors() -> None:
    factors = [gaussian(n, 5, seed=n) for n in (4, 3, 2, 6)]
    torch.testing.assert_close(cp_tensor(factors), torch.einsum("ar,br,cr,dr->abcd", *factors))
    torch.testing.assert_close(cp_tensor(factors[:3]), torch.einsum("ar,br,cr->abc", *factors[:3]))


def test_norms_of_components() -> None:
    factors = [gaussian(n, 3, seed=n) for n in (4, 3, 2)]
    each = [torch.linalg.norm(cp_tensor([factor[:, r : r + 1] for factor in factors])) for r in range(3)]
    torch.testing.assert_close(component_norms(factors), torch.stack(each))


def test_relative_error() -> None:
    tensor = torch.zeros(2, 2, 2)
    tensor[0, 0, 0], tensor[1, 1, 1] = 4.0, 3.0
    first = [torch.tensor([[scale], [0.0]]) for scale in (4.0, 1.0, 1.0)]
    assert cp_error(tensor, first) == 0.6
    assert cp_error(torch.zeros(2, 2, 2), [torch.zeros(2, 1)] * 3) == 0.0
    assert cp_error(torch.zeros(2, 2, 2), first) == math.inf


# --- errors


@pytest.mark.parametrize(
    ("shape", "rank"), [((16, 12, 3, 3), 5), ((10, 9, 8), 4), ((10, 9, 8), 9), ((24, 24, 3, 3), 12), ((5, 30, 7), 3)]
)
def test_exact_low_rank_is_recovered(shape: tuple[int, ...], rank: int) -> None:
    tensor = low_rank(*shape, rank=rank)
    factors = cp_factors(tensor, rank)
    assert [tuple(factor.shape) for factor in factors] == [(n, rank) for n in shape]
    # The error sought is 1e-6, and known to 1 % or so of that.
    assert cp_error(tensor, factors) <= 1.02e-6
    assert size(tensor, factors) < 2


@pytest.mark.parametrize(("shape", "rank"), [((20, 16, 9), 12), ((24, 16, 3, 3), 16)])
def test_error_is_that_of_tensorly(shape: tuple[int, ...], rank: int) -> None:
    """Different starts end in different minima; on noise they lie within 1 % of each other."""
    decomposition = pytest.importorskip("tensorly.decomposition")
    tensor = gaussian(*shape)
    errors = []
    for seed in range(3):
        _, factors = decomposition.parafac(tensor.numpy(), rank, n_iter_max=100, init="random", random_state=seed)
        errors.append(cp_error(tensor, [torch.from_numpy(factor) for factor in factors]))
    assert cp_error(tensor, cp_factors(tensor, rank)) <= min(errors) * 1.01


def test_more_components_lower_the_error() -> None:
    tensor = gaussian(12, 10, 8)
    errors = [cp_error(tensor, cp_factors(tensor, rank, iterations=60)) for rank in (1, 4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.9
    assert errors[3] < 0.25


def test_rank_1_of_a_matrix_is_that_of_its_svd() -> None:
    """A mode of size 1 leaves a matrix: Eckart and Young."""
    tensor = gaussian(9, 1, 7)
    values = torch.linalg.svdvals(tensor[:, 0])
    expected = float(torch.linalg.norm(values[1:]) / torch.linalg.norm(values))
    factors = cp_factors(tensor, 1, iterations=1000)
    # A sweep that lowers the error by less than 1e-6 of it ends the search.
    assert expected - 1e-12 <= cp_error(tensor, factors) <= expected * (1 + 1e-4)


def test_the_best_start_is_taken() -> None:
    """The first start, from singular vectors, is a saddle of this tensor; the random ones find the way down."""
    errors = [cp_error(degenerate(), cp_factors(degenerate(), 2, starts=starts)) for starts in (1, 2, 3, 6)]
    # The correction keeps an error to 1e-9 of it.
    assert all(more <= fewer * (1 + 1e-8) for fewer, more in pairwise(errors))
    assert errors[0] > 0.8
    assert errors[1] < 0.02


@settings(max_examples=12, derandomize=True, deadline=None)
@given(shape=st.lists(st.integers(1, 6), min_size=3, max_size=4), rank=st.integers(1, 8), seed=st.integers(0, 99))
def test_any_shape_and_rank(shape: list[int], rank: int, seed: int) -> None:
    """The error of a rank is at most that of leaving all out; the bound holds; norms lie evenly on the factors."""
    tensor = gaussian(*shape, seed=seed)
    factors = cp_factors(tensor, rank, starts=2, iterations=30, seed=seed)
    assert [tuple(factor.shape) for factor in factors] == [(n, rank) for n in shape]
    assert cp_error(tensor, factors) < 1 if rank * max(shape) < tensor.numel() else cp_error(tensor, factors) <= 1e-14
    assert size(tensor, factors) <= cp_als.NORM_BOUND * (1 + 1e-8)
    for factor in factors:
        torch.testing.assert_close(
            torch.linalg.vector_norm(factor, dim=0), component_norms(factors) ** (1 / len(shape)), rtol=1e-10, atol=0
        )


# --- special tensors


@pytest.mark.parametrize("shape", [(3, 7, 2), (2, 3, 8, 2), (1, 1, 5), (1, 1, 1)])
def test_a_rank_of_all_fibres_is_exact(shape: tuple[int, ...]) -> None:
    tensor = gaussian(*shape)
    count = tensor.numel() // max(shape)
    factors = cp_factors(tensor, count + 2)
    assert cp_error(tensor, factors) <= 1e-15
    assert size(tensor, factors) == pytest.approx(1.0, rel=1e-12)
    assert all(torch.equal(factor[:, count:], torch.zeros(factor.shape[0], 2)) for factor in factors)


def test_fibres_of_zeros_are_components_of_zeros() -> None:
    tensor = gaussian(2, 5, 3)
    tensor[1, :, 2] = 0
    factors = cp_factors(tensor, 6)
    assert cp_error(tensor, factors) <= 1e-15
    assert (component_norms(factors) == 0).tolist() == [False] * 5 + [True]


def test_zero_tensors() -> None:
    factors = cp_factors(torch.zeros(3, 4, 2), 2)
    assert [factor.tolist() for factor in factors] == [[[0.0, 0.0]] * n for n in (3, 4, 2)]


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scale_does_not_matter(scale: float) -> None:
    tensor = gaussian(6, 5, 4)
    factors, scaled = cp_factors(tensor, 3), cp_factors(tensor * scale, 3)
    for factor, other in zip(factors, scaled, strict=True):
        torch.testing.assert_close(other / scale ** (1 / 3), factor, rtol=1e-6, atol=1e-6)


# --- components that cancel each other


def test_a_tensor_without_best_approximation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the bound, alternating least squares drives the norms up as long as it runs; with it, they stop there."""
    tensor = degenerate()
    factors = cp_factors(tensor, 2, iterations=1000)
    assert size(tensor, factors) == pytest.approx(10, rel=1e-8)
    assert cp_error(tensor, factors) < 0.0102
    monkeypatch.setattr(cp_als, "NORM_BOUND", math.inf)
    sizes = [size(tensor, cp_factors(tensor, 2, starts=2, iterations=n)) for n in (200, 1000, 3000)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] > 25


def test_the_correction_lowers_norms_at_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = gaussian(32, 32, 3, 3)
    corrected = cp_factors(tensor, 24)
    monkeypatch.setattr(cp_als, "_correct", lambda x, components: components)
    plain = cp_factors(tensor, 24)
    assert cp_error(tensor, corrected) <= cp_error(tensor, plain) * (1 + 1e-7)
    assert size(tensor, corrected) < 0.6 * size(tensor, plain)


# --- what else a caller counts on


def test_repeatable_and_without_global_random_state() -> None:
    tensor = gaussian(8, 6, 3, 3).float()
    before, state, numpy_state = tensor.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = cp_factors(tensor, 7, seed=5), cp_factors(tensor, 7, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(tensor, before)
    other = cp_factors(tensor, 7, seed=6)
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_of_the_factors(dtype: torch.dtype) -> None:
    """Computed in float64 from the same numbers, and rounded once."""
    tensor = gaussian(8, 6, 5).float()
    factors = cp_factors(tensor.to(dtype), 4)
    exact = cp_factors(tensor.double(), 4)
    assert all(torch.equal(factor, other.to(dtype)) for factor, other in zip(factors, exact, strict=True))
    assert {factor.dtype for factor in factors} == {dtype}
    assert all(factor.is_contiguous() for factor in factors)


def test_weights_that_train() -> None:
    factors = cp_factors(gaussian(6, 5, 4).requires_grad_(), 2)
    assert not any(factor.requires_grad for factor in factors)
