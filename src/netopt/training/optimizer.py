"""The optimizer of a training, on the parameters of a model in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.transform.constraints import Latent


def make_optimizer(
    optimizer: Callable[..., torch.optim.Optimizer], model: nn.Module, lr: float
) -> torch.optim.Optimizer:
    """What `optimizer` makes of the model's parameters: vectors and latent weights without weight decay.

    Raises:
        InvalidArgument, InvalidType: it takes no groups, needs a closure, or makes no optimizer.
    """
    expected = "a function (parameter groups, lr=...) to an optimizer whose step needs no closure"
    fix = "give one such as torch.optim.AdamW"
    try:
        made: object = optimizer(_groups(model), lr=lr)
    except (TypeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        raise InvalidArgument("optimizer", expected=expected, found=found, fix=fix) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise InvalidType("optimizer", expected=expected, found=f"one to {type(made).__name__}", fix=fix)
    if isinstance(made, torch.optim.LBFGS):  # it takes a single group
        raise InvalidArgument("optimizer", expected=expected, found="LBFGS", fix=fix)
    return made


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers = [module for module in model.modules() if isinstance(module, Latent)]
    latent = {weight for layer in layers for weight in layer.latent_weights()}
    others = [parameter for parameter in trained if parameter not in latent]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in others if parameter.dim() > 1]},
        {"params": [parameter for parameter in others if parameter.dim() <= 1], "weight_decay": 0.0},
        {"params": [parameter for parameter in trained if parameter in latent], "weight_decay": 0.0, "latent": True},
    ]
    return [group for group in groups if group["params"]]
