"""The calls of TensorLy that decompositions need, with tensors in and out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from netopt.errors import NetoptError


@contextmanager
def tensorly_on_numpy() -> Iterator[Any]:
    """TensorLy, computing with NumPy's arrays whatever backend the user has set, which is set again after.

    Raises:
        NetoptError: it is not installed.
    """
    try:
        import tensorly  # noqa: PLC0415  # an extra
    except ImportError:
        raise NetoptError("tensorly is not installed", fix="pip install 'netopt[factorization]'") from None
    with tensorly.backend_context("numpy", local_threadsafe=True):
        yield tensorly


def tucker_factors(tensor: torch.Tensor, ranks: Mapping[int, int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Partial Tucker decomposition: a core, and for each mode that is cut an orthonormal factor (n, rank).

    Args:
        tensor: any.
        ranks: of the modes that are cut, at most the extent of the mode, and the product of what is left of the others.
    """
    if not ranks or not tensor.any():
        # TensorLy divides by the norm.
        core = tensor.clone()
        for mode, rank in ranks.items():
            core = core.narrow(mode, 0, rank)
        return core, [torch.eye(tensor.shape[mode], rank).to(tensor) for mode, rank in ranks.items()]
    with tensorly_on_numpy():
        from tensorly.decomposition import partial_tucker  # noqa: PLC0415  # an extra

        array, modes = tensor.detach().cpu().numpy(), list(ranks)
        (core, factors), _ = partial_tucker(
            array, rank=list(ranks.values()), modes=modes, init="svd", tol=1e-4, n_iter_max=25
        )
    core, *factors = (torch.from_numpy(part.copy()).to(tensor) for part in (core, *factors))
    return core, factors
