"""Canonical polyadic decomposition of a tensor, with components that stay small enough to be trained further.

tensor ~= sum over r of outer(a_r, b_r, c_r, ...), with the columns a_r, b_r, c_r of one factor (n_i, rank) a mode.

A best approximation of a given rank need not exist: plain alternating least squares then drives components to huge
norms that cancel each other, and a small step in any of them ruins the sum. Here the sum of the squared norms of the
components is bounded in every step, and made as small as the error reached allows at the end.

Source: Phan, Tichavsky and Cichocki, "Error preserving correction: a method for CP decomposition at a target error
bound", 2019; Phan et al., "Stable low-rank tensor decomposition for compression of convolutional neural network", 2020
(arXiv 2008.05441), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

# Most that the squared norms of the components may sum to, in squared norms of the tensor; orthogonal components sum to
# at most 1. Measured on eight tensors, random, smooth and degenerate: without a bound, the error reached in 200 sweeps
# is lower than with it by at most 0.0002 but for one, (16, 16, 3, 3) at rank 60, where it is 0.0803 instead of 0.0813.
NORM_BOUND = 10.0

# A sweep that lowers the error by less than this share of it is the last.
_ALS_TOLERANCE = 1e-6

# A sweep of the correction that lowers the squared norms by less than this share is the last.
_CORRECTION_TOLERANCE = 1e-3
_CORRECTION_SWEEPS = 100

# A smaller error is not sought, and the correction may raise the error to it. The square of the error is computed as
# 1 minus a sum, that is to 1e-16 or so: this error is known to 1e-4 of itself.
_LEAST_ERROR = 1e-6


def cp_factors(
    tensor: torch.Tensor, rank: int, *, starts: int = 3, iterations: int = 200, seed: int = 0
) -> list[torch.Tensor]:
    """Factors (n_i, rank), one a mode, whose sum of outer products approximates `tensor` in the Frobenius norm.

    Alternating least squares with bounded components from several starts, the best of them by error; then the
    correction that lowers the norms of the components at the same error, or at 1e-6 where that is more. The norm of a
    component is spread evenly over its columns. Computed in float64 on the CPU; the same seed gives the same factors,
    and no global random state is used. A rank that reaches the number of fibres along the largest mode gives an exact
    decomposition.

    Args:
        tensor: of order 2 or more, finite numbers.
        rank: number of components, at least 1.
        starts: at least 1: the first from singular vectors, the others at random.
        iterations: most sweeps over the modes a start, at least 1.
        seed: of the random starts.

    Source: see the module.
    """
    order = sorted(range(tensor.dim()), key=lambda mode: -tensor.shape[mode])
    x = tensor.detach().to("cpu", torch.float64).permute(order).contiguous()
    scale = _norm(x)
    if scale == 0:
        return [tensor.new_zeros(n, rank) for n in tensor.shape]
    x = x / scale
    if rank * x.shape[0] >= x.numel():
        components = _fibres(x, rank)
    else:
        found = [_bounded_als(x, units, iterations) for units in _starts(x, rank, starts, seed)]
        components = _correct(x, min(found, key=lambda candidate: candidate.error))
    root = (components.norms * scale) ** (1 / x.dim())
    # Made anew for each mode, so that no factor is a view into another's memory.
    return [(components.units[order.index(mode)] * root).to(tensor) for mode in range(x.dim())]


def cp_tensor(factors: list[torch.Tensor]) -> torch.Tensor:
    """The sum of the outer products of the columns: a tensor (n_0, n_1, ...) of factors (n_i, rank)."""
    first, *others = factors
    return (first @ _khatri_rao(others).T).reshape([factor.shape[0] for factor in factors])


def cp_error(tensor: torch.Tensor, factors: list[torch.Tensor]) -> float:
    """Norm of the difference over the norm of `tensor`, both Frobenius; for a zero tensor, 0 or infinity."""
    exact = tensor.detach().double()
    difference, size = _norm(cp_tensor([factor.detach().double() for factor in factors]) - exact), _norm(exact)
    if size == 0:
        return math.inf if difference else 0.0
    return difference / size


@dataclass(frozen=True)
class _Components:
    """Columns of norm 1 (or 0), a factor a mode; the norms of the components (rank,); the relative error."""

    units: list[torch.Tensor]
    norms: torch.Tensor
    error: float

    @property
    def size(self) -> float:
        return float(self.norms.square().sum())


class _Ridge:
    """The factor A of one mode, given unit columns in the others: min |X - A Z|^2 + weight |A|^2, for |X| = 1.

    With Z Z^T = Q diag(s) Q^T, A = X Z^T Q diag(1 / (s + weight)) Q^T: each weight costs as many operations as there
    are components. |A|^2 is the sum of the squared norms of the components.
    """

    def __init__(self, products: torch.Tensor, gram: torch.Tensor) -> None:
        """Take X Z^T (n, rank) and Z Z^T (rank, rank)."""
        values, self._vectors = torch.linalg.eigh(gram)
        self._rotated = products @ self._vectors
        self._s = values.clamp(min=0).numpy()
        self._energy = self._rotated.square().sum(dim=0).numpy()
        # At a weight of 0, components that are linearly dependent would divide 0 by 0.
        self.least, self.most = 1e-13 * float(self._s[-1]), 1e6 * float(self._s[-1])

    def factor(self, weight: float) -> torch.Tensor:
        """A, (n, rank)."""
        factor: torch.Tensor = (self._rotated / torch.from_numpy(self._s + weight)) @ self._vectors.T
        return factor

    def size(self, weight: float) -> float:
        """|A|^2; falls as the weight grows."""
        return float((self._energy / (self._s + weight) ** 2).sum())

    def squared_error(self, weight: float) -> float:
        """|X - A Z|^2; grows with the weight."""
        return 1 - float((self._energy * (self._s + 2 * weight) / (self._s + weight) ** 2).sum())


def _within_size(ridge: _Ridge) -> float:
    """The least weight, and so the least error, that keeps to NORM_BOUND."""
    if ridge.size(ridge.least) <= NORM_BOUND:
        return ridge.least
    return _bisect(lambda weight: ridge.size(weight) > NORM_BOUND, ridge.least, ridge.most)[1]


def _within_error(bound: float) -> Callable[[_Ridge], float]:
    """A function that gives the largest weight, and so the least norms, that keeps to an error."""

    def weight_of(ridge: _Ridge) -> float:
        return _bisect(lambda weight: ridge.squared_error(weight) <= bound**2, ridge.least, ridge.most)[0]

    return weight_of


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Where `holds`, true at `low` and false at `high`, changes: two neighbours, equal to 1e-10 or so."""
    # 19 decades halved 40 times, in the logarithm.
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


def _bounded_als(x: torch.Tensor, units: list[torch.Tensor], iterations: int) -> _Components:
    """Alternating least squares with the squared norms of the components bounded by NORM_BOUND.

    The bound holds from the first step on, and the components of each step are among those that the next may choose:
    the error never grows.
    """
    best = _sweep(x, units, _within_size)
    for _ in range(iterations - 1):
        previous, best = best, _sweep(x, best.units, _within_size)
        if best.error <= _LEAST_ERROR or previous.error - best.error <= _ALS_TOLERANCE * best.error:
            break
    return best


def _correct(x: torch.Tensor, components: _Components) -> _Components:
    """Components of the same error, the sum of whose squared norms is a (local) minimum.

    Source: Phan, Tichavsky and Cichocki, 2019, the alternating algorithm; a mode's factor is the minimum of |A|^2
    subject to |X - A Z| <= error.
    """
    bound = max(components.error, _LEAST_ERROR)
    for _ in range(_CORRECTION_SWEEPS):
        corrected = _sweep(x, components.units, _within_error(bound))
        fallen = 1 - corrected.size / components.size
        components = corrected
        if fallen < _CORRECTION_TOLERANCE:
            break
    return components


def _sweep(x: torch.Tensor, units: list[torch.Tensor], weight_of: Callable[[_Ridge], float]) -> _Components:
    """Solve for the factor of each mode in turn, given those of the others.

    X has its largest mode first. All the other modes work on X contracted with that mode's factor, so that a sweep
    reads X twice, whatever the order.
    """
    units = list(units)
    contracted = torch.empty(0)
    for mode in range(x.dim()):
        others = units[:mode] + units[mode + 1 :]
        products = x.flatten(1) @ _khatri_rao(others) if mode == 0 else _contract(contracted, units, mode)
        gram = torch.stack([unit.T @ unit for unit in others]).prod(dim=0)
        ridge = _Ridge(products, gram)
        weight = weight_of(ridge)
        factor = ridge.factor(weight)
        norms = torch.linalg.vector_norm(factor, dim=0)
        units[mode] = factor / norms.where(norms > 0, 1.0)
        if mode == 0:
            contracted = (units[0].T @ x.flatten(1)).reshape(-1, *x.shape[1:])
    return _Components(units, norms, max(ridge.squared_error(weight), 0.0) ** 0.5)


def _contract(contracted: torch.Tensor, units: list[torch.Tensor], mode: int) -> torch.Tensor:
    """X times the columns of all modes but one, (n, rank), from X times those of mode 0, (rank, n_1, n_2, ...)."""
    rank = contracted.shape[0]
    rest = contracted.movedim(mode, -1)
    for other, unit in enumerate(units):
        if other not in {0, mode}:
            rest = torch.bmm(unit.T[:, None, :], rest.reshape(rank, unit.shape[0], -1))
    return rest.reshape(rank, -1).T


def _khatri_rao(factors: list[torch.Tensor]) -> torch.Tensor:
    """The outer product of each component's columns, flattened: (n_0 n_1 ..., rank)."""
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, None, :] * factor[None, :, :]).flatten(0, 1)
    return product


def _starts(x: torch.Tensor, rank: int, starts: int, seed: int) -> Iterator[list[torch.Tensor]]:
    """Unit columns to start from: the leading left singular vectors of the unfoldings first, then random ones."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(starts):
        units = [torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in x.shape]
        if start == 0:
            for mode, unit in enumerate(units):
                unfolding = x.movedim(mode, 0).flatten(1)
                leading = torch.linalg.eigh(unfolding @ unfolding.T)[1].flip(1)[:, :rank]
                # A mode smaller than the rank has fewer singular vectors: the remaining columns stay random.
                unit[:, : leading.shape[1]] = leading
        yield [unit / torch.linalg.vector_norm(unit, dim=0) for unit in units]


def _fibres(x: torch.Tensor, rank: int) -> _Components:
    """The exact decomposition into the fibres of the first mode, with columns of zeros up to `rank`."""
    fibres = x.flatten(1)
    count = fibres.shape[1]
    positions = torch.unravel_index(torch.arange(count), x.shape[1:])
    units = [x.new_zeros(n, rank) for n in x.shape]
    norms = x.new_zeros(rank)
    norms[:count] = torch.linalg.vector_norm(fibres, dim=0)
    units[0][:, :count] = fibres / norms[:count].where(norms[:count] > 0, 1.0)
    for unit, position in zip(units[1:], positions, strict=True):
        unit[position, torch.arange(count)] = 1.0
    return _Components(units, norms, 0.0)


def _norm(x: torch.Tensor) -> float:
    """Frobenius norm; scaled by the largest number, so that the squares of tiny ones do not vanish."""
    largest = float(x.abs().max())
    return largest * float(torch.linalg.vector_norm(x / largest)) if largest else 0.0
