"""Modules put in the place of others."""

from __future__ import annotations

from torch import nn


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put `new` wherever `old` stands, and return the model, which may itself be `old`."""
    if model is old:
        return new
    # The parents are listed first: `new` may hold `old`, and must keep it.
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
    return model
