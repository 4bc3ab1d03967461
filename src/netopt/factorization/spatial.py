"""Spatial SVD of convolutions: first along the height, then along the width.

A kernel W (T, S, kh, kw), as a matrix of S kh rows and T kw columns, is cut to rank R: a kh x 1 convolution S -> R,
then a 1 x kw one R -> T.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import nn

from netopt.factorization.convolution import ConvDecomposition, ConvFactorization
from netopt.factorization.ranks import Ranks
from netopt.factorization.stages import Stage
from netopt.factorization.truncate import truncated
from netopt.transform.select import Layer


@dataclass(frozen=True, kw_only=True)
class SpatialSVD(ConvFactorization):
    """Replace convolutions of images by a vertical and a horizontal one.

    Attributes:
        rank: channels between both, of each group; full is min(S kh, T kw).
        multiple: ranks that a rule finds are rounded to the nearest multiple; None for the CPU's vectors.
        select: which convolutions; None for all.

    Source: Jaderberg et al., 1405.3866, "Speeding up convolutional neural networks with low rank expansions", scheme 2;
    the closed form by SVD is of Tai et al., 1511.06067, section 2.
    """

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv2d, nn.ConvTranspose2d)

    def decomposition(self, layer: Layer) -> SpatialDecomposition:
        return SpatialDecomposition(layer)


class SpatialDecomposition(ConvDecomposition):
    """The one mode are the channels between both convolutions."""

    method: ClassVar[str] = "SpatialSVD"

    @property
    def full(self) -> Ranks:
        return (min(self.ins * self.geometry.kernel[0], self.outs * self.geometry.kernel[1]),)

    def _matrix(self, kernel: torch.Tensor) -> torch.Tensor:
        """(T kw, S kh)."""
        return kernel.permute(0, 3, 1, 2).flatten(2).flatten(0, 1)

    @cached_property
    def _spectrum(self) -> torch.Tensor:
        values = [torch.linalg.svdvals(self._matrix(self.weighted(group))) for group in range(self.groups)]
        return torch.stack(values).square().sum(0)

    def energies(self) -> list[torch.Tensor]:
        return [self._spectrum]

    def unfoldings(self) -> list[list[torch.Tensor]]:
        return [[self._matrix(block) for block in self.blocks]]

    def stages(self, ranks: Ranks) -> list[Stage]:
        geometry, groups = self.geometry, self.groups
        rank = groups * ranks[0]
        vertical = {0, *geometry.free}
        horizontal = set(geometry.axes) - vertical
        return [
            geometry.stage("vertical", geometry.inputs, rank, axes=vertical, groups=groups),
            geometry.stage("horizontal", rank, geometry.outputs, axes=horizontal, groups=groups, is_last=True),
        ]

    def factors(self, group: int, ranks: Ranks) -> list[torch.Tensor]:
        (rank,) = ranks
        height, width = self.geometry.kernel
        last, first = truncated(torch.linalg.svd(self._matrix(self.weighted(group)), full_matrices=False), rank)
        vertical = self.unweighted(first.view(rank, self.ins, height, 1), group)
        return [vertical, last.view(self.outs, width, rank).transpose(1, 2).unsqueeze(2)]

    def features(self, weights: list[torch.Tensor], last_kernel: torch.Size, stages: list[Stage]) -> torch.Tensor:
        width = last_kernel[1]
        shift = torch.eye(width, dtype=weights[0].dtype, device=weights[0].device)
        # At each of its places the horizontal kernel sees a vertical one of that column.
        return torch.einsum("rsa,bc->rbsac", weights[0][..., 0], shift).flatten(2).flatten(0, 1)
