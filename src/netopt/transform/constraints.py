"""What training must keep to: latent weights stay where they have a gradient."""

from __future__ import annotations

from torch import nn


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
