"""Weights that techniques can work with."""

from __future__ import annotations

import torch
from torch import nn

from netopt.errors import InvalidArgument


def finite_weight(module: nn.Module, layer: str) -> torch.Tensor:
    """A copy of a layer's weight in float32, or in float64 where it is that.

    Raises:
        InvalidArgument: as `check_finite_weight`.
    """
    check_finite_weight(module, layer)
    assert isinstance(module.weight, torch.Tensor)
    weight = module.weight.detach()
    return weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)


def check_finite_weight(module: nn.Module, layer: str) -> None:
    """Raise InvalidArgument if a layer's weight has no values, or some that are NaN or infinite; names the layer.

    Ranks and signs of such numbers mean nothing, and what would be made of them would hide where they come from.
    """
    assert isinstance(module.weight, torch.Tensor)
    weight = module.weight.detach()
    if weight.is_meta:
        raise InvalidArgument(
            "weight",
            expected="values",
            found="a tensor on the meta device",
            layer=layer,
            fix="load the trained weights first",
        )
    wrong = weight.numel() - int(torch.isfinite(weight).sum())
    if wrong:
        raise InvalidArgument(
            "weight",
            expected="finite numbers",
            found=f"NaN or infinity in {wrong:,} of {weight.numel():,}",
            layer=layer,
            fix="give trained weights that are finite, or leave the layer out with select=...",
        )
