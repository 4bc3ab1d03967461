"""A part of a data set in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument


@dataclass(frozen=True)
class Split:
    """Inputs and their labels.

    Attributes:
        images: float32, (number, features) or (number, channels, height, width).
        labels: classes (number,) as int64.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if self.images.shape[:1] != self.labels.shape:
            found = f"{tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            raise InvalidArgument("images and labels", expected="(number, ...) and (number,)", found=found)

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, number: int) -> Split:
        """The first `number` of them."""
        return Split(self.images[:number], self.labels[:number])
