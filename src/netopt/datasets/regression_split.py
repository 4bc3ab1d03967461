"""A part of a data set whose targets are numbers, in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument


@dataclass(frozen=True)
class RegressionSplit:
    """Inputs and the numbers that are to be found for them.

    Attributes:
        inputs: float32, (number, features).
        targets: float32, (number, outputs).

    Raises:
        InvalidArgument: the two have not as many rows, or other shapes.
    """

    inputs: torch.Tensor
    targets: torch.Tensor

    def __post_init__(self) -> None:
        if self.inputs.dim() != 2 or self.targets.dim() != 2 or len(self.inputs) != len(self.targets):
            found = f"{tuple(self.inputs.shape)} and {tuple(self.targets.shape)}"
            raise InvalidArgument(
                "inputs and targets", expected="(number, features) and (number, outputs)", found=found
            )

    def __len__(self) -> int:
        return len(self.targets)

    def first(self, number: int) -> RegressionSplit:
        """The first `number` of them."""
        return RegressionSplit(self.inputs[:number], self.targets[:number])
