"""The methods, and convolutions of every geometry, that all methods are tested on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from netopt import Layer
from netopt.factorization import CP, ChannelSVD, DepthwiseSVD, FactoredConv, SpatialSVD, Tucker
from netopt.factorization.convolution import ConvFactorization
from netopt.transform.technique import Keep, Proposal

METHODS: dict[str, Callable[..., ConvFactorization]] = {
    "Tucker": Tucker,
    "CP": CP,
    "CP of 3 ways": lambda **options: CP(ways=3, **options),
    "SpatialSVD": SpatialSVD,
    "ChannelSVD": ChannelSVD,
    "DepthwiseSVD": DepthwiseSVD,
}

# Channels that are no multiples of anything, but for groups.
CONV2D: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Conv2d(5, 7, 3),
    "no bias": lambda: nn.Conv2d(5, 7, 3, bias=False),
    "padding by axis": lambda: nn.Conv2d(5, 7, (3, 5), padding=(1, 2)),
    "padding above the kernel": lambda: nn.Conv2d(5, 7, (3, 2), padding=(4, 3)),
    "valid": lambda: nn.Conv2d(5, 7, 3, padding="valid"),
    "same": lambda: nn.Conv2d(5, 7, (3, 5), padding="same"),
    "same, even kernel": lambda: nn.Conv2d(5, 7, (4, 2), padding="same"),
    "same, dilation": lambda: nn.Conv2d(5, 7, (3, 2), padding="same", dilation=(2, 3)),
    "same, reflect": lambda: nn.Conv2d(5, 7, (4, 3), padding="same", padding_mode="reflect"),
    "reflect": lambda: nn.Conv2d(5, 7, 3, padding=(1, 2), padding_mode="reflect"),
    "replicate": lambda: nn.Conv2d(5, 7, 3, padding=(2, 1), stride=2, padding_mode="replicate"),
    "circular": lambda: nn.Conv2d(5, 7, 3, padding=(1, 2), padding_mode="circular"),
    "stride of one axis": lambda: nn.Conv2d(5, 7, 3, stride=(2, 1)),
    "stride of the other": lambda: nn.Conv2d(5, 7, 3, stride=(1, 2), padding=1),
    "stride, dilation, padding": lambda: nn.Conv2d(5, 7, (2, 3), stride=(2, 3), dilation=(3, 2), padding=(2, 1)),
    "stride above the kernel": lambda: nn.Conv2d(5, 7, 2, stride=3),
    "groups": lambda: nn.Conv2d(6, 8, 3, groups=2, padding=(1, 0)),
    "groups without bias": lambda: nn.Conv2d(6, 9, (3, 2), groups=3, stride=2, bias=False),
    "groups, reflect": lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="reflect"),
    "1 x 1": lambda: nn.Conv2d(5, 7, 1),
    "1 x 1, strided": lambda: nn.Conv2d(7, 5, 1, stride=(2, 3)),
    "1 x 1, padded": lambda: nn.Conv2d(5, 7, 1, padding=(1, 2), stride=2),
    "1 x 1, same": lambda: nn.Conv2d(5, 7, 1, padding="same"),
    "1 x 1, groups": lambda: nn.Conv2d(6, 4, 1, groups=2),
    "vertical": lambda: nn.Conv2d(5, 7, (3, 1), stride=(1, 2), padding=(1, 0)),
    "horizontal": lambda: nn.Conv2d(5, 7, (1, 4), stride=(3, 1), dilation=(1, 2)),
    "horizontal, padded": lambda: nn.Conv2d(5, 7, (1, 3), padding=1),
}
CONV1D: dict[str, Callable[[], nn.Module]] = {
    "1d": lambda: nn.Conv1d(5, 7, 3, padding=1),
    "1d, stride, dilation": lambda: nn.Conv1d(5, 7, 4, stride=3, dilation=2, padding=2, bias=False),
    "1d, circular": lambda: nn.Conv1d(5, 7, 3, padding=2, padding_mode="circular"),
    "1d, same": lambda: nn.Conv1d(5, 7, 4, padding="same"),
    "1d, groups": lambda: nn.Conv1d(6, 8, 3, groups=2),
    "1d, 1 x 1": lambda: nn.Conv1d(5, 7, 1, stride=2),
}
TRANSPOSED: dict[str, Callable[[], nn.Module]] = {
    "transposed": lambda: nn.ConvTranspose2d(5, 7, 3),
    "transposed, stride": lambda: nn.ConvTranspose2d(7, 5, (3, 4), stride=(2, 3), padding=(1, 0), bias=False),
    "transposed, output padding": lambda: nn.ConvTranspose2d(5, 7, 3, stride=(2, 3), padding=1, output_padding=(1, 2)),
    "transposed, groups": lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, groups=2, dilation=(2, 1)),
    "transposed, groups, output padding": lambda: nn.ConvTranspose2d(
        6, 9, 3, stride=2, groups=3, output_padding=(0, 1)
    ),
    "transposed, 1 x 1": lambda: nn.ConvTranspose2d(6, 4, 1, groups=2),
    "transposed, 1 x 1, strided": lambda: nn.ConvTranspose2d(5, 7, 1, stride=(2, 1)),
    "transposed, horizontal": lambda: nn.ConvTranspose2d(5, 7, (1, 3), stride=2, padding=(0, 1)),
    "transposed 1d": lambda: nn.ConvTranspose1d(5, 7, 4, stride=2, padding=1, output_padding=1),
    "transposed 1d, groups": lambda: nn.ConvTranspose1d(6, 4, 3, groups=2, stride=2),
}
LAYERS = {**CONV2D, **CONV1D, **TRANSPOSED}


def handle(module: nn.Module, **fields: Any) -> Layer:
    """A layer that is a whole network."""
    return Layer("conv", module, is_first=True, is_last=True, **fields)


def proposal(technique: ConvFactorization, layer: Layer) -> Proposal | None:
    """What the technique proposes; None where it keeps the layer."""
    answer = technique.replace(layer)
    assert isinstance(answer, Proposal | Keep)
    return answer if isinstance(answer, Proposal) else None


def factored(technique: ConvFactorization, module: nn.Module) -> FactoredConv | None:
    """What the technique makes of a convolution; None where it keeps it. The convolution is not changed."""
    found = proposal(technique, handle(copy.deepcopy(module)))
    if found is None:
        return None
    built = found.build()
    assert isinstance(built, FactoredConv)
    return built


def _pairs() -> list[tuple[str, str]]:
    with torch.random.fork_rng():
        layers = {name: make() for name, make in LAYERS.items()}
    return [
        (method, name)
        for method, make in METHODS.items()
        for name, layer in layers.items()
        if type(layer) in make(rank=1).handles and proposal(make(rank=1), handle(layer)) is not None
    ]


# Every method with every convolution that it decomposes.
PAIRS = _pairs()


def inputs_of(module: nn.Module, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Random inputs of odd size, of the layer's dtype."""
    assert isinstance(module.in_channels, int) and isinstance(module.kernel_size, tuple)
    size = (11, 13)[-len(module.kernel_size) :]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, module.in_channels, *size, generator=generator, dtype=torch.float64)
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return x.to(weight.dtype)


def with_weight(module: nn.Module, weight: torch.Tensor) -> nn.Module:
    """A copy of a layer with another weight."""
    module = copy.deepcopy(module)
    with torch.no_grad():
        assert isinstance(module.weight, torch.Tensor)
        module.weight.copy_(weight)
    return module


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|."""
    a, b = a.detach().double(), b.detach().double()
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def correlated(module: nn.Module, batch: int = 8, seed: int = 0) -> torch.Tensor:
    """Inputs whose channels are mixtures of two, and a little noise of their own; smooth along the axes, too."""
    x = inputs_of(module, batch, seed)
    channels = x.shape[1]
    mixture = torch.randn(channels, 2, generator=torch.Generator().manual_seed(seed + 1), dtype=x.dtype)
    smooth = (x[:, :2] + x[:, :2].roll(1, -1) + x[:, :2].roll(2, -1)) / 3
    return torch.einsum("cm,bm...->bc...", mixture, smooth) + 0.1 * x


def component_norms(factors: list[torch.Tensor]) -> torch.Tensor:
    """Frobenius norm of each component, (rank,): the product of the norms of its columns.

    The sum of their squares, over the squared norm of the tensor, tells how far components cancel: about 1 is healthy.
    """
    return torch.stack([torch.linalg.vector_norm(factor, dim=0) for factor in factors]).prod(dim=0)
