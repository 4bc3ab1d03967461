"""SVD of each input channel's kernels: depthwise, then 1 x 1. Rank 1 is a depthwise separable convolution.

For each input channel s the matrix W[:, s] (T, kh kw) is cut to rank R: a depthwise convolution with R outputs for each
input, then a 1 x 1 convolution S R -> T.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import nn

from netopt.factorization.convolution import ConvDecomposition, ConvFactorization
from netopt.factorization.moments import roots
from netopt.factorization.ranks import Ranks
from netopt.factorization.stages import Stage
from netopt.factorization.truncate import truncated
from netopt.transform.select import Layer
from netopt.transform.technique import Keep


@dataclass(frozen=True, kw_only=True)
class DepthwiseSVD(ConvFactorization):
    """Replace convolutions by a depthwise and a 1 x 1 one.

    Attributes:
        rank: R; full is min(T, kh kw), with T the outputs of a group.
        multiple: ranks that a rule finds are rounded to the nearest multiple; 1, as S R is what the kernels see.
        select: which convolutions; None for all.

    Source: Guo et al., 1812.08374, "Network decoupling: from regular to depthwise separable convolutions", theorem 1;
    the `svd_convolution` of Sony's nnabla is the same.
    """

    multiple: int | None = 1
    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv1d, nn.Conv2d)

    def decomposition(self, layer: Layer) -> ConvDecomposition | Keep:
        found = DepthwiseDecomposition(layer)
        if found.ins == 1:
            return Keep("is depthwise already")
        return found if found.geometry.area > 1 else Keep("a 1 x 1 kernel has nothing to separate")


class DepthwiseDecomposition(ConvDecomposition):
    """The one mode are the kernels of an input channel."""

    method: ClassVar[str] = "DepthwiseSVD"

    @property
    def full(self) -> Ranks:
        return (min(self.outs, self.geometry.area),)

    def _metric(self, group: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """For each channel of the group the root of the moment of its patches, (in, kh kw, kh kw), and the inverse."""
        if self.moments is None:
            return None
        area = self.geometry.area
        moment = self.moments[group].view(self.ins, area, self.ins, area)
        pairs = [roots(moment[channel, :, channel]) for channel in range(self.ins)]
        return torch.stack([root for root, _ in pairs]), torch.stack([inverse for _, inverse in pairs])

    @cached_property
    def _parts(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For each group the SVD of its channels, batched: U (in, T, k), s (in, k), Vh (in, k, kh kw)."""
        parts = []
        for group, block in enumerate(self.blocks):
            matrices, metric = block.flatten(2).transpose(0, 1), self._metric(group)
            if metric is None:
                parts.append(tuple(torch.linalg.svd(matrices, full_matrices=False)))
            else:
                u, s, vh = torch.linalg.svd(matrices @ metric[0], full_matrices=False)
                parts.append((u, s, vh @ metric[1]))
        return parts

    def energies(self) -> list[torch.Tensor]:
        return [torch.cat([s for _, s, _ in self._parts]).square().sum(0)]

    def unfoldings(self) -> list[list[torch.Tensor]]:
        return [[matrix for block in self.blocks for matrix in block.flatten(2).transpose(0, 1)]]

    def stages(self, ranks: Ranks) -> list[Stage]:
        geometry = self.geometry
        between = geometry.inputs * ranks[0]
        return [
            geometry.stage("depthwise", geometry.inputs, between, axes=geometry.axes, groups=geometry.inputs),
            geometry.stage("pointwise", between, geometry.outputs, axes=(), groups=self.groups, is_last=True),
        ]

    def factors(self, group: int, ranks: Ranks) -> list[torch.Tensor]:
        (rank,) = ranks
        pointwise, depthwise = truncated(self._parts[group], rank)
        ones = (1,) * len(self.geometry.kernel)
        return [
            depthwise.reshape(self.ins * rank, 1, *self.geometry.kernel),
            pointwise.permute(1, 0, 2).reshape(self.outs, self.ins * rank, *ones),
        ]
