"""Rounding of weights to a format that finds its own scales, with a gradient that passes it."""

from __future__ import annotations

import torch
from torch import nn

from netopt.numerics import NumberFormat


class FormatRounding(nn.Module):
    """What a number format makes of a tensor; the gradient is that of the tensor.

    Attributes:
        format: the format.
        enabled: whether anything is rounded.
    """

    def __init__(self, format_: NumberFormat) -> None:
        super().__init__()
        self.format, self.enabled = format_, True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The numbers as the format stands for them, of the type of x."""
        if not self.enabled:
            return x
        numbers = self.format.decode(self.format.encode(x.detach()), x.dtype)
        return x + (numbers - x.detach())

    def extra_repr(self) -> str:
        """The format."""
        return str(self.format)
