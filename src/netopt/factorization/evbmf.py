"""The rank of a matrix under noise, by empirical variational Bayesian matrix factorization (EVBMF).

The matrix is taken for one of low rank plus Gaussian noise of unknown variance. The variance that minimizes the free
energy decides which singular values stand out of the noise; their number is the rank. No training data is needed.

Source: Nakajima, Sugiyama, Babacan and Tomioka, "Global analytic solution of fully-observed variational Bayesian matrix
factorization", JMLR 14, 2013; the simpler form in tau, the threshold and the bounds of the variance as in Nakajima,
Tomioka, Sugiyama and Babacan, "Condition for perfect dimensionality recovery by variational Bayesian PCA", JMLR 16,
2015.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch

from netopt.errors import NetoptError

# Points of the first, coarse search for the variance, which spans 31 decades at most. On 4,000 spectra with steps or
# slopes over up to 12 decades, 4,096 points gave the same ranks; 32 points gave 25 others.
_GRID = 256


def evbmf_rank(matrix: torch.Tensor, precision: torch.dtype | None = None) -> int:
    """The number of singular values that stand out of the noise.

    0 means that the matrix cannot be told from noise; so it is for zeros, and for a single row or column, which says
    nothing about its noise. The rank is always below ceil(m n / (m + n)): nearly full rank cannot be recognized, even
    without noise. Neither scale nor orientation matters. Computed in float64.

    What rounding leaves of an exact rank is not taken for more of it: see `_rounding`.

    Args:
        matrix: (m, n), finite numbers.
        precision: the type that its numbers were rounded to; None for the matrix's own.

    Raises:
        NetoptError: SciPy is not installed.

    Source: see the module.
    """
    optimize = _scipy_optimize()
    rows, columns = sorted(matrix.shape)
    squares = _squared_spectrum(matrix.detach().to("cpu", torch.float64), precision or matrix.dtype)
    if squares is None:
        return 0
    alpha = rows / columns
    threshold = _threshold(alpha, optimize)
    limit = -(-rows * columns // (rows + columns)) - 1

    def energy(log_variance: float) -> float:
        return _free_energy(squares / (columns * math.exp(log_variance)), alpha, threshold)

    low, high = _variance_bounds(squares, columns, limit, threshold)
    variance = math.exp(_minimum(energy, math.log(low), math.log(high), optimize))
    return int((squares > threshold * columns * variance).sum())


def _minimum(energy: Callable[[float], float], low: float, high: float, optimize: ModuleType) -> float:
    """Where a function that may have several minima is least: at a point of a grid, or near it."""
    grid = [float(point) for point in np.linspace(low, high, _GRID)]
    values = [energy(point) for point in grid]
    best = int(np.argmin(values))
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    if left == right:
        return left
    found = optimize.minimize_scalar(energy, bounds=(left, right), method="bounded", options={"xatol": 1e-9})
    return float(found.x) if found.fun < values[best] else grid[best]


def _scipy_optimize() -> ModuleType:
    # SciPy comes with the extra, so it is not imported before it is needed.
    try:
        return importlib.import_module("scipy.optimize")
    except ImportError:
        raise NetoptError("scipy is not installed", fix="pip install 'netopt[factorization]'") from None


def _squared_spectrum(matrix: torch.Tensor, precision: torch.dtype) -> np.ndarray | None:
    """Squared singular values of a float64 matrix in descending order, the largest 1; None for a zero matrix."""
    values = torch.linalg.svdvals(matrix).numpy()
    if values[0] == 0:
        return None
    # Smaller values, 0 among them, whose logarithm is needed, count as noise of exactly this size: of rounding, or of
    # the decomposition itself.
    own = torch.finfo(torch.float64).eps * sum(math.sqrt(n) for n in matrix.shape)
    floor = max(own, _rounding(matrix, precision) / values[0])
    squares: np.ndarray = np.maximum(values / values[0], floor) ** 2
    return squares


def _rounding(matrix: torch.Tensor, precision: torch.dtype) -> float:
    """A bound of the singular values that rounding to a precision adds to a matrix.

    Each number is off by its own size times 0.2 eps, about, so that large rows and columns hold more of the error than
    small ones: it is noise, but not of one variance, and the model would find structure in it. The spectral norm of
    independent numbers is about that of the largest row plus that of the largest column. 0.2 is taken for 1, as
    weights that were computed in this precision were rounded several times.

    Source: Bandeira and van Handel, "Sharp nonasymptotic bounds on the norm of random matrices with independent
    entries", Annals of Probability 44, 2016, theorem 1.1, for the norm.
    """
    largest = matrix.norm(dim=0).max() + matrix.norm(dim=1).max()
    return torch.finfo(precision).eps * float(largest)


def _threshold(alpha: float, optimize: ModuleType) -> float:
    """What gamma^2 / (M variance) must exceed for the component to be kept.

    (1 + tau) (1 + alpha / tau), tau being the zero of Phi(tau) + Phi(tau / alpha), Phi(z) = log(1 + z) / z - 1/2. The
    paper's approximation tau = 2.5129 sqrt(alpha) would make the free energy jump at the threshold.
    """

    def phi(z: float) -> float:
        return math.log1p(z) / z - 0.5

    # Phi falls, and its zero is at 2.5129: the sum is above 0 where both arguments are below that, and below 0 where
    # both are above.
    tau = float(optimize.brentq(lambda t: phi(t) + phi(t / alpha), 2.5 * alpha, 2.6))
    return (1 + tau) * (1 + alpha / tau)


def _variance_bounds(squares: np.ndarray, columns: int, limit: int, threshold: float) -> tuple[float, float]:
    """Least and largest variance at which the free energy can be minimal; `limit` is the largest rank that it allows.

    Source: the bounds of the noise variance in the paper of 2015.
    """
    low = max(squares[limit] / threshold, squares[limit:].mean()) / columns
    high = squares.mean() / columns
    return float(min(low, high)), float(high)


def _free_energy(x: np.ndarray, alpha: float, threshold: float) -> float:
    """Free energy of a noise variance, but for constants and factors; x is gamma^2 / (M variance), (L,).

    Source: Omega in the paper of 2015, with a sum over all L singular values. Each adds x - log(x), and those kept add
    log(1 + tau) + alpha log(1 + tau / alpha) - tau more, with x = (1 + tau) (1 + alpha / tau).
    """
    kept = x[x > threshold]
    excess = kept - (1 + alpha)
    tau = (excess + np.sqrt(excess**2 - 4 * alpha)) / 2
    gain = np.log1p(tau) + alpha * np.log1p(tau / alpha) - tau
    return float((x - np.log(x)).sum() + gain.sum())
