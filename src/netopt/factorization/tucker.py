"""Tucker-2 decomposition of convolutions: fewer channels around the kernel.

A kernel W (T, S, kh, kw) becomes a sum over r4 and r3 of U[t, r4] core[r4, r3, :, :] V[s, r3]: a 1 x 1 convolution
S -> R3, a kh x kw one R3 -> R4, which has stride, padding and dilation, and a 1 x 1 one R4 -> T, which has the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from netopt.factorization.convolution import ConvDecomposition, ConvFactorization
from netopt.factorization.ranks import Ranks, check_rank
from netopt.factorization.stages import Stage
from netopt.factorization.tensorly_calls import tucker_factors
from netopt.factorization.truncate import truncated
from netopt.transform.select import Layer


@dataclass(frozen=True, kw_only=True)
class Tucker(ConvFactorization):
    """Replace convolutions by their Tucker-2 decomposition.

    The start is the truncated higher-order SVD; alternating refinement (HOOI, by TensorLy) follows. A rank that is full
    needs no 1 x 1 convolution. A 1 x 1 convolution is cut like a matrix, at the lesser of both ranks. A rank above the
    product of the other one and the places of the kernel is lowered to that, which loses nothing.

    Attributes:
        rank: of both modes: a rule, a number, or (R4, R3) for outputs and inputs; of each group.
        multiple: ranks that a rule finds are rounded to the nearest multiple; None for the CPU's vectors.
        select: which convolutions; None for all.

    Source: Kim et al., 1511.06530, "Compression of deep convolutional neural networks for fast and low power mobile
    applications", equations 3 to 6; De Lathauwer et al., 2000, for HOOI.
    """

    def decomposition(self, layer: Layer) -> TuckerDecomposition:
        return TuckerDecomposition(layer)


class TuckerDecomposition(ConvDecomposition):
    """The modes are the outputs and the inputs of a group."""

    method: ClassVar[str] = "Tucker"

    @property
    def full(self) -> Ranks:
        return self.outs, self.ins

    def at_number(self, rank: int) -> Ranks:
        check_rank(rank, max(self.full), self.layer.name)
        return tuple(min(rank, full) for full in self.full)

    @cached_property
    def _spectra(self) -> list[torch.Tensor]:
        kernels = [self.weighted(group) for group in range(self.groups)]
        modes = []
        for mode, full in enumerate(self.full):
            total = kernels[0].new_zeros(full)
            for kernel in kernels:
                values = torch.linalg.svdvals(kernel.transpose(0, mode).flatten(1)).square()
                total[: len(values)] += values
            modes.append(total)
        return modes

    def energies(self) -> list[torch.Tensor]:
        return self._spectra

    def unfoldings(self) -> list[list[torch.Tensor]]:
        return [[block.transpose(0, mode).flatten(1) for block in self.blocks] for mode in range(2)]

    def _useful(self, ranks: Ranks) -> Ranks:
        """The ranks, but for those that the other one, and the places of the kernel, cannot fill."""
        outs, ins = ranks
        if outs < self.outs:
            outs = min(outs, ins * self.geometry.area)
        if ins < self.ins:
            ins = min(ins, outs * self.geometry.area)
        return outs, ins

    def stages(self, ranks: Ranks) -> list[Stage]:
        outs, ins = ranks = self._useful(ranks)
        geometry, groups = self.geometry, self.groups
        if not geometry.bound:
            rank = groups * min(ranks)
            return [
                geometry.stage("reduce", geometry.inputs, rank, axes=geometry.free, groups=groups),
                geometry.stage("expand", rank, geometry.outputs, axes=(), groups=groups, is_last=True),
            ]
        cuts_inputs, cuts_outputs = ins < self.ins, outs < self.outs
        stages = []
        if cuts_inputs:
            free = geometry.free
            stages.append(geometry.stage("reduce", geometry.inputs, groups * ins, axes=free, groups=groups))
        axes = geometry.bound if cuts_inputs else geometry.axes
        stages.append(
            geometry.stage("core", groups * ins, groups * outs, axes=axes, groups=groups, is_last=not cuts_outputs)
        )
        if cuts_outputs:
            stages.append(
                geometry.stage("expand", groups * outs, geometry.outputs, axes=(), groups=groups, is_last=True)
            )
        return stages

    def factors(self, group: int, ranks: Ranks) -> list[torch.Tensor]:
        kernel = self.weighted(group)
        ones = (1,) * (kernel.dim() - 2)
        if not self.geometry.bound:
            last, first = truncated(torch.linalg.svd(kernel.flatten(1), full_matrices=False), min(ranks))
            return [self.unweighted(first.reshape(*first.shape, *ones), group), last.reshape(*last.shape, *ones)]
        cut = {mode: rank for mode, rank in enumerate(self._useful(ranks)) if rank < self.full[mode]}
        core, found = tucker_factors(kernel, cut)
        factors = dict(zip(cut, found, strict=True))
        weights = [core]
        if 1 in cut:
            inputs = factors[1].T
            weights.insert(0, inputs.reshape(*inputs.shape, *ones))
        weights[0] = self.unweighted(weights[0], group)
        if 0 in cut:
            weights.append(factors[0].reshape(*factors[0].shape, *ones))
        return weights
