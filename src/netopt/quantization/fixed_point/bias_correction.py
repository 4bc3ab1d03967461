"""What the rounding of weights changes in the mean of a layer's outputs, and so what its biases are to make up for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from netopt.errors import InvalidArgument


def bias_correction(
    weight: torch.Tensor,
    rounded: torch.Tensor,
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    inputs: Iterable[torch.Tensor],
    *,
    axis: int = 1,
) -> torch.Tensor:
    """What to add to the biases, so that the mean of each output channel is what it was: E[(w - rounded) x].

    Source: Nagel et al., 1906.04721, section 4.2, equations 15 to 17, with the mean over inputs in place of that which
    batch normalization tells.

    Args:
        weight: as it was.
        rounded: as it is now, of the same shape.
        product: of a weight and inputs the sums, without bias and activation.
        inputs: batches.
        axis: of the output channels, in what `product` gives.

    Returns:
        (outputs,), as the weight.

    Raises:
        InvalidArgument: there are no inputs.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    with torch.no_grad():
        difference = weight.detach() - rounded.detach()
        for x in inputs:
            # The product is linear in the weight.
            shift = product(difference, x).movedim(axis, 0).flatten(1)
            total, count = total + shift.sum(1, dtype=torch.float64), count + shift.shape[1]
    if not count:
        raise InvalidArgument("inputs of bias correction", expected="at least one", found="none")
    return (total / count).to(weight.dtype)
