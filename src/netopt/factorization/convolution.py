"""What the decompositions of convolutions have in common: groups, stages, costs, and the fit to calibration inputs."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import nn

from netopt.factorization.decomposition import Decomposition, Factorization, inherit_with_bias
from netopt.factorization.geometry import Geometry, blocks_of
from netopt.factorization.moments import (
    channel_moment,
    fitted,
    moments_of_patches,
    relative_error,
    root_ratio,
    roots,
)
from netopt.factorization.ranks import Ranks
from netopt.factorization.stages import FactoredConv, Stage, composed
from netopt.transform.cost import Cost
from netopt.transform.finite import finite_weight
from netopt.transform.select import Layer


class ConvDecomposition(Decomposition):
    """A convolution, each group of which is decomposed on its own, with the same ranks.

    A subclass says which stages there are and what their weights are. Weights of a group are (out, in, ...), also of
    transposed convolutions.
    """

    method: ClassVar[str]

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer, finite_weight(layer.module, layer.name))
        self.geometry = Geometry.of(layer.module)
        self.blocks = blocks_of(layer.module, layer.name)
        self.groups = self.geometry.groups
        self.outs, self.ins = self.geometry.outputs // self.groups, self.geometry.inputs // self.groups

    @abstractmethod
    def stages(self, ranks: Ranks) -> list[Stage]:
        """The convolutions, in their order."""

    @abstractmethod
    def factors(self, group: int, ranks: Ranks) -> list[torch.Tensor]:
        """For each stage the weight of one group, (out, in, ...)."""

    # --- costs

    def cost(self, ranks: Ranks) -> Cost:
        stages = self.stages(ranks)
        parameters = sum(stage.weights for stage in stages)
        if not self.layer.input_shapes:
            return Cost(parameters, parameters)
        axes = len(self.geometry.kernel)
        total = 0
        for shape in self.layer.input_shapes:
            batch = shape[0] if len(shape) == axes + 2 else 1
            size: tuple[int, ...] = tuple(shape[-axes:])
            for stage in stages:
                given, size = size, stage.output_size(size)
                places = torch.Size(given if stage.transposed else size).numel()
                total += batch * places * stage.weights
        return Cost(parameters, total)

    # --- the replacement

    def build(self, ranks: Ranks) -> FactoredConv:
        stages = self.stages(ranks)
        parts = [self._fit(stages, self.factors(group, ranks), group) for group in range(self.groups)]
        weights = []
        for stage, group_weights in zip(stages, zip(*parts, strict=True), strict=True):
            # Depthwise kernels have one input in both layouts.
            swaps = stage.transposed and stage.groups == self.groups
            weights.append(torch.cat([w.transpose(0, 1) if swaps else w for w in group_weights]))
        bias = self.layer.module.bias if isinstance(self.layer.module.bias, nn.Parameter) else None
        replacement = FactoredConv(self.method, stages, transposed=self.geometry.transposed).set_weights(
            [weight.to(self.weight.dtype) for weight in weights], bias
        )
        return inherit_with_bias(replacement, self.layer.module)

    # --- calibration

    @cached_property
    def moments(self) -> list[torch.Tensor] | None:
        """Of the patches that each group sees; None without calibration inputs."""
        return moments_of_patches(self.layer, self.geometry)

    @cached_property
    def roots(self) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
        """For each group the root of the moment of its channels, and its inverse; None likewise."""
        if self.moments is None:
            return None
        return [roots(channel_moment(moment, self.geometry.area)) for moment in self.moments]

    def weighted(self, group: int) -> torch.Tensor:
        """The kernel for channels of unit moment: what it does to the inputs as they are, and not just its size."""
        block = self.blocks[group]
        return block if self.roots is None else torch.einsum("ts...,su->tu...", block, self.roots[group][0])

    def unweighted(self, first: torch.Tensor, group: int) -> torch.Tensor:
        """A first stage (out, in, ...) for the channels as they are, from one for channels of unit moment."""
        return first if self.roots is None else torch.einsum("ru...,us->rs...", first, self.roots[group][1])

    def _fit(self, stages: list[Stage], weights: list[torch.Tensor], group: int) -> list[torch.Tensor]:
        """The weights of the stages, the last of them fitted to what the layer does to the calibration inputs."""
        if self.moments is None or len(weights) < 2:
            return weights
        features = self.features(weights[:-1], weights[-1].shape[2:], stages)
        last = fitted(self.blocks[group].flatten(1), self.moments[group], features)
        return [*weights[:-1], last.view_as(weights[-1])]

    def features(self, weights: list[torch.Tensor], last_kernel: torch.Size, stages: list[Stage]) -> torch.Tensor:
        """What the kernel of the last stage of a group sees, as a function of a patch: (k, in kh kw)."""
        kernel = None
        for weight, stage in zip(weights, stages, strict=False):
            is_depthwise = weight.shape[1] == 1 and stage.groups > self.groups
            if kernel is None:
                kernel = _spread(weight, self.ins) if is_depthwise else weight
            else:
                kernel = composed(kernel, weight, depthwise=is_depthwise)
        assert kernel is not None
        if last_kernel.numel() == 1:
            return kernel.flatten(1)
        # The stages before it are 1 x 1: it sees what they make of each place.
        places = torch.eye(last_kernel.numel(), dtype=kernel.dtype, device=kernel.device)
        return torch.einsum("rs,ab->rasb", kernel.flatten(1), places).flatten(2).flatten(0, 1)

    def error(self, module: nn.Module) -> float:
        assert isinstance(module, FactoredConv)
        # Composed in float64: half precision would add errors that the network does not have.
        weight = copy.deepcopy(module).double().weight.detach()
        chunks = weight.chunk(self.groups)
        wrong, size = 0.0, 0.0
        for group, chunk in enumerate(chunks):
            other = chunk.transpose(0, 1) if self.geometry.transposed else chunk
            moment = None if self.moments is None else self.moments[group]
            parts = relative_error(self.blocks[group].flatten(1), other.flatten(1), moment)
            wrong, size = wrong + parts[0], size + parts[1]
        return root_ratio(wrong, size)


def _spread(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The kernel (channels r, channels, ...) of a depthwise first stage (channels r, 1, ...): zeros elsewhere."""
    multiplier = len(weight) // channels
    wide = weight.new_zeros(len(weight), channels, *weight.shape[2:])
    places = torch.arange(len(weight))
    wide[places, places // multiplier] = weight[:, 0]
    return wide


@dataclass(frozen=True, kw_only=True)
class ConvFactorization(Factorization):
    """A factorization of convolutions."""

    handles: ClassVar[tuple[type[nn.Module], ...]] = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
