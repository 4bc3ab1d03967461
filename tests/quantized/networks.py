"""Small networks of many kinds, with inputs, for what is tested on whole networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class Residual(nn.Module):
    """Convolutions with batch norm, a shortcut, pooling and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(12, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (batch, 3, height, width)."""
        x = self.first(x)
        x = torch.relu(x + self.body(x))
        x = nn.functional.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


class Branches(nn.Module):
    """A concatenation, a sum of two branches, a depthwise convolution, average pooling, a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 5, padding=2)
        self.depthwise = nn.Conv2d(12, 12, 3, 2, 1, groups=12)
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (batch, 4, height, width)."""
        y = torch.cat([self.one(x), nn.functional.relu6(self.two(x))], 1)
        y = self.depthwise(y)
        y = y[:, :6] + y[:, 6:]
        return self.last(nn.functional.avg_pool2d(y, 2))


class Attention(nn.Module):
    """Layers between which a softmax and a layer norm compute in floats."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (batch, tokens, 16)."""
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return x + self.out(torch.softmax(q @ k.transpose(1, 2) / 4, -1) @ v)


def mlp() -> nn.Module:
    """Three dense layers."""
    return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (3, 8, 12)),
    "branches": (Branches, (4, 12, 8)),
    "attention": (Attention, (5, 16)),
    "mlp": (mlp, (10,)),
}
# Those in which all but the last layer compute on codes.
INTEGER = ("residual", "branches", "mlp")


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network in eval mode, with statistics of its own, and 24 inputs."""
    factory, shape = NETWORKS[name]
    torch.manual_seed(sum(map(ord, name)))
    model = factory()
    with torch.no_grad():
        model.train()
        for _ in range(20):
            model(torch.randn(32, *shape))
    return model.eval(), torch.randn(24, *shape)
