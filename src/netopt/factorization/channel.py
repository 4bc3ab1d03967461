"""SVD of convolutions over their output channels: fewer of them, then a 1 x 1 convolution.

A kernel W (T, S, kh, kw), as a matrix of T rows, is cut to rank R: the same convolution S -> R, then a 1 x 1 one
R -> T.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from netopt.factorization.convolution import ConvDecomposition, ConvFactorization
from netopt.factorization.moments import principal_components
from netopt.factorization.ranks import Ranks
from netopt.factorization.stages import Stage
from netopt.transform.select import Layer


@dataclass(frozen=True, kw_only=True)
class ChannelSVD(ConvFactorization):
    """Replace convolutions, above all 1 x 1 ones, by one with R output channels and a 1 x 1 one.

    Of a transposed convolution the input channels are cut, since its input is the smaller image: a 1 x 1 convolution
    S -> R, then the transposed one R -> T.

    Attributes:
        rank: R, of each group; full is min(T, S kh kw).
        multiple: ranks that a rule finds are rounded to the nearest multiple; None for the CPU's vectors.
        select: which convolutions; None for all.

    Source: Zhang et al., 1505.06798, "Accelerating very deep convolutional networks for classification and detection",
    section 3.1: with calibration inputs its equation 4, the principal components of the outputs, without the mean.
    """

    def decomposition(self, layer: Layer) -> ChannelDecomposition:
        return ChannelDecomposition(layer)


class ChannelDecomposition(ConvDecomposition):
    """The one mode are the output channels, or the input channels of a transposed convolution."""

    method: ClassVar[str] = "ChannelSVD"

    @property
    def full(self) -> Ranks:
        if self._cuts_inputs:
            return (min(self.ins, self.outs * self.geometry.area),)
        return (min(self.outs, self.ins * self.geometry.area),)

    @property
    def _cuts_inputs(self) -> bool:
        return self.geometry.transposed

    def _matrix(self, group: int) -> torch.Tensor:
        """(T, S kh kw); or (S, T kh kw)."""
        block = self.blocks[group]
        return (block.transpose(0, 1) if self._cuts_inputs else block).flatten(1)

    def _directions(self, group: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is largest in the outputs, on calibration inputs if there are any: unit vectors and squared sizes."""
        matrix = self._matrix(group)
        if self.moments is None:
            u, s, _ = torch.linalg.svd(matrix, full_matrices=False)
            return u, s.square()
        return principal_components(matrix, self.moments[group])

    @cached_property
    def _parts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [self._directions(group) for group in range(self.groups)]

    def energies(self) -> list[torch.Tensor]:
        return [torch.stack([energy[: self.full[0]] for _, energy in self._parts]).sum(0)]

    def unfoldings(self) -> list[list[torch.Tensor]]:
        return [[self._matrix(group) for group in range(self.groups)]]

    def stages(self, ranks: Ranks) -> list[Stage]:
        geometry, groups = self.geometry, self.groups
        rank = groups * ranks[0]
        before, after = ((), geometry.axes) if self._cuts_inputs else (geometry.axes, ())
        return [
            geometry.stage("reduce", geometry.inputs, rank, axes=before, groups=groups),
            geometry.stage("expand", rank, geometry.outputs, axes=after, groups=groups, is_last=True),
        ]

    def factors(self, group: int, ranks: Ranks) -> list[torch.Tensor]:
        (rank,) = ranks
        matrix, directions = self._matrix(group), self._parts[group][0][:, :rank]
        inner = directions.T @ matrix
        # Both factors get the root of the size of a component, so that their gradients are of one size.
        size = inner.norm(dim=1).clamp_min(torch.finfo(inner.dtype).tiny).sqrt()
        inner, directions = inner / size[:, None], directions * size
        kernel, ones = self.geometry.kernel, (1,) * len(self.geometry.kernel)
        if self._cuts_inputs:
            return [directions.T.unflatten(1, (-1, *ones)), inner.view(rank, self.outs, *kernel).transpose(0, 1)]
        return [inner.view(rank, self.ins, *kernel), directions.unflatten(1, (-1, *ones))]
