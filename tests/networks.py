"""Small networks that together use every op, for tests of whole networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from netopt import zoo


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        """What the function returns."""
        return self.function(*inputs)


class TwoInputs(nn.Module):
    """Broadcasts one input over the other, with every kind of arithmetic."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a + 2 * b[:1]) * (1 - a) / (b * b + 1.5) - 3


class Nested(nn.Module):
    """Takes and gives nested structures."""

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        left, (middle, right) = batch["left"], batch["rest"]
        return {"sum": left + middle, "pair": (right.relu(), left - right)}


class Residual(nn.Module):
    """Pre-norm residual blocks, as in a transformer's feed-forward half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.up = nn.ModuleList([nn.Linear(width, 2 * width + 3) for _ in range(2)])
        self.down = nn.ModuleList([nn.Linear(2 * width + 3, width, bias=bool(i)) for i in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return x


class Shapes(nn.Module):
    """Moves elements in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(7, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x).reshape(-1, 3, 4).transpose(1, 2)
        first, second = y.chunk(2, dim=1)
        y = torch.cat([second, first, y[:, 1:2]], 1)
        return y.flatten(1).unsqueeze(0).permute(0, 2, 1).squeeze(0)[1::2]


class Norms(nn.Module):
    """Batch normalization after, before and away from dense layers, in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(11, 9), nn.BatchNorm1d(9)
        self.bn2, self.fc2 = nn.BatchNorm1d(9), nn.Linear(9, 6, bias=False)
        self.bn3 = nn.BatchNorm1d(6, affine=False)
        for module in (self.bn1, self.bn2, self.bn3):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(self.bn1(self.fc1(x)).relu(), 0.5, self.training)
        return self.bn3(self.fc2(self.bn2(x)).tanh()).log_softmax(1)


def _activations() -> tuple[nn.Module, torch.Tensor]:
    layers: list[nn.Module] = []
    for activation in (
        *(nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SELU(), nn.CELU(0.8), nn.GELU()),
        *(nn.GELU("tanh"), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.Softplus(2.0)),
        nn.Hardtanh(-0.5, 0.7),
    ):
        layers += [nn.Linear(13, 13), activation]
    return nn.Sequential(*layers), torch.randn(5, 13)


class Images(nn.Module):
    """Every op on images, odd sizes, a branch, a gate, a residual, and two ways out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 10, (5, 3), (2, 1), (2, 0), bias=False), nn.BatchNorm2d(10)
        self.grouped = nn.Conv2d(10, 20, 3, padding="same", groups=2)
        self.depthwise, self.wide = (
            nn.Conv2d(20, 20, 3, padding=1, groups=20),
            nn.Conv2d(20, 20, 3, padding=2, dilation=2),
        )
        self.gate, self.late = nn.Conv2d(20, 20, 1), nn.BatchNorm2d(20)
        self.fc = nn.Linear(20 * 4 * 4, 7)
        for module in (self.bn, self.late):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.leaky_relu(self.bn(self.stem(x)), 0.2), 3, 2, 1, ceil_mode=True)
        x = self.grouped(x).relu()
        y = F.hardswish(self.depthwise(x)) + self.wide(x)
        y = self.late(y * self.gate(F.adaptive_avg_pool2d(y, 1)).sigmoid())
        y = torch.cat([y[:, 10:], y[:, :10]], 1)
        return self.fc(F.avg_pool2d(y, 2, 1, 1, count_include_pad=False)[:, :, :4, ::2].flatten(1)).tanh()


class Decoder(nn.Module):
    """Padding, slopes, transposed convolutions, shuffles and resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.slopes = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.PReLU(8)
        self.up, self.bn = nn.ConvTranspose2d(8, 12, 4, 2, 1, bias=False), nn.BatchNorm2d(12)
        self.norm, self.last = nn.BatchNorm2d(12), nn.Conv2d(12, 16, 3)
        self.late = nn.ConvTranspose1d(4, 3, 3, 2, 1, 1)
        for module in (self.bn, self.norm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn(self.up(self.slopes(self.first(x)))).relu()
        y = F.interpolate(F.channel_shuffle(y, 3), scale_factor=1.5, mode="bilinear") * 2
        y = self.last(F.pad(self.norm(y).relu(), (1, 2, 0, 1)))
        y = F.pixel_shuffle(F.interpolate(y, (10, 8)), 2)
        y = F.adaptive_max_pool2d(y, (6, 5)) + F.adaptive_avg_pool2d(F.pixel_unshuffle(y, 2)[:, :4], (6, 5))
        return self.late(F.avg_pool1d(y.flatten(2), 3, 1, 1))


# Name -> (model, example).
NETWORKS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "linear": lambda: (nn.Linear(7, 5), torch.randn(7)),
    "mlp": lambda: (nn.Sequential(nn.Linear(50, 70), nn.ReLU(), nn.Linear(70, 10), nn.Softmax(-1)), torch.randn(1, 50)),
    "activations": _activations,
    "residual": lambda: (Residual(33), torch.randn(2, 5, 33)),
    "shapes": lambda: (Shapes(), torch.randn(3, 7)),
    "norms": lambda: (Norms().train(), torch.randn(4, 11)),
    "images": lambda: (Images(), torch.randn(2, 3, 11, 12)),
    "decoder": lambda: (Decoder(), torch.randn(2, 3, 5, 6)),
    "lenet5": lambda: (zoo.lenet5(), torch.randn(3, 1, 28, 28)),
    "conv1d": lambda: (
        nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 4, 2)),
        torch.randn(2, 3, 17),
    ),
    "arithmetic": lambda: (TwoInputs(), (torch.randn(3, 5), torch.randn(4, 5)[1:4])),
}
