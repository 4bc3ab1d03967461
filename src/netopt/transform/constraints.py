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


class Latent:
    """A layer with latent weights: numbers that are trained, and of which the layer uses less, such as the sign."""

    def latent_weights(self) -> tuple[nn.Parameter, ...]:
        """Weights that have no weight decay, since their size means nothing."""
        return ()

    def saved_bytes(self) -> int:
        """Bytes that its weights take less, in the file of a lowered network, than 4 each."""
        return 0

    def constrain(self) -> None:
        """Bring the weights back to where their gradient is; to be called after each step of an optimizer."""
