"""CP decomposition of convolutions: filters of one row and one column, on channels mixed before and after.

A kernel W (T, S, kh, kw) becomes a sum of R products a[t] b[s] c[y] d[x]: a 1 x 1 convolution S -> R, a depthwise
kh x 1 one, a depthwise 1 x kw one, and a 1 x 1 one R -> T, which has the bias. With three ways, products
a[t] b[s] c[y, x]: one depthwise kh x kw convolution stands in the place of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.factorization.convolution import ConvDecomposition, ConvFactorization
from netopt.factorization.cp_als import cp_error, cp_factors
from netopt.factorization.ranks import Ranks
from netopt.factorization.stages import Stage
from netopt.transform.select import Layer

# Alternating steps with which losses at many ranks are estimated.
_QUICK = 8


@dataclass(frozen=True, kw_only=True)
class CP(ConvFactorization):
    """Replace convolutions by their canonical polyadic decomposition.

    Found by regularized alternating least squares from several seeded starts, with a bound on the norms of the
    components, and corrected to the least norms with the same error: without that, components cancel each other, and
    learning rates must be a thousand times lower than usual (see `netopt.factorization.cp_als`).

    Attributes:
        rank: R, of each group. Full is the number of products that any kernel is a sum of: T S kh kw without the
            largest of the four. The rule EVBMF takes the larger of the ranks of outputs and inputs.
        ways: 4, or 3 for depthwise convolutions over both axes at once.
        seed: of the starts.
        multiple: ranks that a rule finds are rounded to the nearest multiple; None for the CPU's vectors.
        select: which convolutions; None for all.

    Source: Lebedev et al., 1412.6553, "Speeding-up convolutional neural networks using fine-tuned CP-decomposition",
    equations 2 to 5; Phan et al., 2008.05441, for the correction.
    """

    ways: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.ways) is not int or self.ways not in (3, 4):
            raise InvalidArgument("ways", expected="3 or 4", found=repr(self.ways))
        if type(self.seed) is not int or not 0 <= self.seed < 1 << 63:
            raise InvalidArgument("seed", expected="an integer from 0 to 2^63 - 1", found=repr(self.seed))

    def decomposition(self, layer: Layer) -> CPDecomposition:
        return CPDecomposition(layer, self.ways, self.seed)


class CPDecomposition(ConvDecomposition):
    """The one mode are the components."""

    def __init__(self, layer: Layer, ways: int, seed: int) -> None:
        super().__init__(layer)
        self._ways, self._seed = ways, seed
        self._losses = cache(self._estimate)

    method: ClassVar[str] = "CP"

    @property
    def _kernel(self) -> list[int]:
        """The extents of the tensor beside outputs and inputs."""
        extents = [self.geometry.kernel[axis] for axis in self.geometry.bound]
        return extents if self._ways == 4 or not extents else [torch.Size(extents).numel()]

    @property
    def full(self) -> Ranks:
        extents = (self.outs, self.ins, *self._kernel)
        return (torch.Size(extents).numel() // max(extents),)

    def _tensor(self, group: int) -> torch.Tensor:
        """(T, S, ...) without the axes that a 1 x 1 convolution does."""
        return self.weighted(group).reshape(self.outs, self.ins, *self._kernel)

    def _estimate(self, ranks: Ranks) -> float:
        errors = [
            cp_error(tensor, cp_factors(tensor, ranks[0], starts=1, iterations=_QUICK, seed=self._seed)) ** 2
            for tensor in (self._tensor(group) for group in range(self.groups))
        ]
        return min(1.0, sum(errors) / len(errors))

    def loss(self, ranks: Ranks) -> float:
        return self._losses(ranks)

    @cached_property
    def _break_even(self) -> int:
        """The largest rank that saves parameters, or 1."""
        one = self.cost((1,)).parameters
        return max(1, min(self.full[0], (self.weight.numel() - 1) // one))

    def grid(self, multiple: int) -> Sequence[Ranks]:
        # Each loss takes an alternating least squares, and a step the cube of the rank: few ranks, in even ratios.
        step = multiple if self._break_even > multiple else 1
        shares = (0.7 * self._break_even * 0.7**power for power in range(6))
        return [(rank,) for rank in sorted({max(step, int(share) // step * step) for share in shares})]

    def at_energy(self, share: float) -> Ranks:
        # Above the rank that saves parameters a step takes minutes, and the layer stays as it is anyhow.
        low, high = 1, min(self.full[0], self._break_even + 1)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.loss((middle,)) <= 1 - share else (middle + 1, high)
        return (low,)

    def energies(self) -> list[torch.Tensor]:
        raise AssertionError("components are not ordered by energy")

    def unfoldings(self) -> list[list[torch.Tensor]]:
        return [[block.transpose(0, mode).flatten(1) for block in self.blocks for mode in range(2)]]

    def stages(self, ranks: Ranks) -> list[Stage]:
        geometry, groups = self.geometry, self.groups
        between = groups * ranks[0]
        stages = [geometry.stage("reduce", geometry.inputs, between, axes=geometry.free, groups=groups)]
        parts = [geometry.bound] if self._ways == 3 else [(axis,) for axis in geometry.bound]
        for axes in parts:
            if axes:
                name = "depthwise" if len(parts) == 1 else ("vertical", "horizontal")[axes[0]]
                stages.append(geometry.stage(name, between, between, axes=axes, groups=between))
        return [*stages, geometry.stage("expand", between, geometry.outputs, axes=(), groups=groups, is_last=True)]

    def factors(self, group: int, ranks: Ranks) -> list[torch.Tensor]:
        (rank,) = ranks
        outputs, inputs, *kernel = cp_factors(self._tensor(group), rank, seed=self._seed)
        ones = (1,) * len(self.geometry.kernel)
        weights = [self.unweighted(inputs.T.reshape(rank, self.ins, *ones), group)]
        for stage, factor in zip(self.stages(ranks)[1:-1], kernel, strict=True):
            weights.append(factor.T.reshape(rank, 1, *stage.kernel))
        return [*weights, outputs.reshape(self.outs, rank, *ones)]
