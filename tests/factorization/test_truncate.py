"""A decomposition cut to a rank."""

from __future__ import annotations

import pytest
import torch

from netopt.factorization.truncate import truncated


@pytest.mark.parametrize("shape", [(6, 9), (3, 7, 4)])
def test_factors_of_one_size_whose_product_is_the_truncated_matrix(shape: tuple[int, ...]) -> None:
    parts = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    u, v = truncated(parts, 2)
    assert (u.shape, v.shape) == ((*shape[:-1], 2), (*shape[:-2], 2, shape[-1]))
    expected = parts[0][..., :2] @ torch.diag_embed(parts[1][..., :2]) @ parts[2][..., :2, :]
    torch.testing.assert_close(u @ v, expected)
    torch.testing.assert_close(u.norm(dim=-2), v.norm(dim=-1))
