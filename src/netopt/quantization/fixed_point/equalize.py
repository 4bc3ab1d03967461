"""Two layers in a row scaled against each other, so that their channels have like ranges and share a format well."""

from __future__ import annotations

import torch

from netopt.errors import InvalidArgument
from netopt.quantization.fixed_point.steps import Kind, check_kind, round_steps


def equalize(
    weight1: torch.Tensor,
    bias1: torch.Tensor | None,
    weight2: torch.Tensor,
    *,
    groups: int = 1,
    kind: Kind = "real",
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """The same function in weights of like ranges, where what is between is nothing, or a ReLU, or else scales along.

    For each channel i between both layers, with the largest magnitudes r1 and r2 of its weights in the first and the
    second: s = sqrt(r1 / r2), W1[i] / s, b1[i] / s, W2[:, i] s. Then both have the range sqrt(r1 r2). A channel without
    weights in one of them stays as it is. For three layers, as those around a depthwise one, apply it to both pairs in
    turn until nothing changes much.

    Source: Nagel et al., 1906.04721, section 4.1, equations 8 to 11.

    Args:
        weight1: (channels, ...) of a dense layer or a convolution, depthwise or not.
        bias1: (channels,), or None.
        weight2: (outputs, channels / groups, ...) of the next.
        groups: of the next: as many as channels, if it is depthwise.
        kind: "power": the s are powers of two, so that in floats no result changes at all.

    Returns:
        New weight1, bias1 and weight2.

    Raises:
        InvalidArgument: the shapes do not fit.
    """
    check_kind(kind)
    channels = len(weight1)
    fits = groups >= 1 and len(weight2) % groups == 0 and weight2.dim() > 1 and weight2.shape[1] * groups == channels
    if not fits or (bias1 is not None and bias1.shape != (channels,)):
        shapes = f"{tuple(weight1.shape)} and {tuple(weight2.shape)} in {groups} groups"
        raise InvalidArgument(
            "weights to equalize", expected="channels of the first that the second reads", found=shapes
        )
    by_group = weight2.detach().reshape(groups, -1, *weight2.shape[1:])
    first = weight1.detach().flatten(1).abs().amax(1).double()
    # (groups, outputs / groups, channels / groups, n): of each channel all that reads it.
    second = by_group.reshape(*by_group.shape[:3], -1).abs().amax((1, 3)).reshape(-1).double()
    scale = torch.where((first > 0) & (second > 0), (first / second).sqrt(), 1.0)
    if kind == "power":
        scale = round_steps(scale, "power")
    along1 = scale.to(weight1.dtype)
    along2 = along1.reshape(groups, 1, -1, *[1] * (weight2.dim() - 2))
    return (
        weight1.detach() / along1.reshape(-1, *[1] * (weight1.dim() - 1)),
        None if bias1 is None else bias1.detach() / along1,
        (by_group * along2).reshape(weight2.shape),
    )
