"""What the time of a layer depends on, so that a layer like another one need not be measured again."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import nn

_PLAIN = (int, float, bool, str, bytes, type(None), torch.dtype, torch.device, type)
# Attributes that every module has; what counts of them is looked at by name.
_OWN = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


class _Unknown(Exception):
    """Something that may change the time in a way that is not known."""


def problem_of(module: nn.Module) -> Hashable | None:
    """Equal for modules that take one time on one input; None where that cannot be said.

    These are the types of all modules in it, their attributes, and the shapes and types of their tensors. What the
    tensors hold does not count, but for whether a weight has signs alone, which is lowered to other kernels. Modules
    with hooks, with a `forward` of their own, or with attributes that are no plain values are like no other.
    """
    try:
        return tuple((name, *_part(part)) for name, part in module.named_modules())
    except _Unknown:
        return None


def _part(module: nn.Module) -> tuple[Any, ...]:
    attributes = vars(module)
    if any(attributes[name] for name in _HOOKS) or "forward" in attributes:
        raise _Unknown
    values = tuple((name, _value(value)) for name, value in attributes.items() if name not in _OWN)
    tensors = (*module._parameters.items(), *module._buffers.items())
    return type(module), values, tuple((name, *_tensor(tensor)) for name, tensor in tensors)


def _tensor(tensor: torch.Tensor | None) -> tuple[Hashable, ...]:
    if tensor is None:
        return (None,)
    signs = tensor.is_floating_point() and not tensor.is_meta and bool((tensor.detach().abs() == 1).all())
    return tensor.shape, tensor.dtype, tensor.device, signs


def _value(value: Any) -> Hashable:
    """A value that compares as the attribute does."""
    if isinstance(value, _PLAIN):
        return (type(value), value)
    if isinstance(value, list | tuple):
        return (type(value), tuple(map(_value, value)))
    if isinstance(value, Mapping):
        return (type(value), tuple((_value(key), _value(inner)) for key, inner in value.items()))
    if dataclasses.is_dataclass(value):
        return (type(value), tuple((f.name, _value(getattr(value, f.name))) for f in dataclasses.fields(value)))
    if isinstance(value, types.BuiltinFunctionType) or (
        isinstance(value, types.FunctionType) and not value.__closure__
    ):
        return value
    raise _Unknown
