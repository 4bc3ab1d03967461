"""A singular value decomposition cut to a rank, as two factors."""

from __future__ import annotations

import torch


def truncated(
    decomposition: tuple[torch.Tensor, torch.Tensor, torch.Tensor], rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(..., m, k) and (..., k, n) of U, s, V^T at rank k: the root of each singular value goes to each factor.

    So the gradients of both factors are of one size in retraining.
    """
    u, s, vh = decomposition
    root = s[..., :rank].sqrt()
    return u[..., :rank] * root[..., None, :], root[..., None] * vh[..., :rank, :]
