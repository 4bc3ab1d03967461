"""An example: one input of a model, in the three forms that every verb takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from netopt.errors import InvalidType

# One input: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
Example = torch.Tensor | tuple[Any, ...] | Mapping[str, Any]


def split_example(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the keyword arguments that an example stands for.

    Raises:
        InvalidType: it has none of the three forms.
    """
    if isinstance(example, torch.Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple):
        return example, {}
    raise InvalidType(
        "example",
        expected="a tensor, a tuple of positional arguments or a dict of keyword arguments",
        found=type(example).__name__,
    )


def call(model: nn.Module, example: Any) -> Any:
    """The model's output for an example, or for a list of positional arguments, as loaders give them."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple | list) else model(example)
