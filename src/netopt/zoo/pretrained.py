"""Weights that come with netopt, trained by bench/train_zoo.py."""

from __future__ import annotations

from importlib import resources
from typing import TypeVar

from safetensors.torch import load
from torch import nn

from netopt.errors import InvalidArgument

Network = TypeVar("Network", bound=nn.Module)


def with_weights(model: Network, name: str, classes: int = 10) -> Network:
    """The model in eval mode, with the trained weights of this name.

    Raises:
        InvalidArgument: the weights are for another number of classes.
    """
    if classes != 10:
        raise InvalidArgument(
            "classes", expected="10, as the trained weights have", found=classes, fix="leave pretrained=True out"
        )
    weights = resources.files("netopt.zoo").joinpath("weights", f"{name}.safetensors").read_bytes()
    model.load_state_dict(load(weights))
    return model.eval()
