"""Layers whose weight is computed from other tensors in each run, as the plain layers that they amount to.

PyTorch has three ways to make such a layer: `torch.nn.utils.parametrize`, whose layers are of a class of their own; the
hooks of the older `weight_norm` and `spectral_norm`; and the masks of `torch.nn.utils.prune`, which are hooks, too.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

_NAMES = {
    "_WeightNorm": "weight_norm",
    "WeightNorm": "weight_norm",
    "_SpectralNorm": "spectral_norm",
    "SpectralNorm": "spectral_norm",
    "_Orthogonal": "orthogonal",
}


@dataclass(frozen=True)
class Plain:
    """A layer as a plain one.

    Attributes:
        module: a layer of the plain type with the weight that the layer has in eval mode; the layer itself if it is
            plain, or cannot be made so. What is not computed, such as the bias, is shared with the layer.
        note: what became of the computation of its weight, for the report; empty for a plain layer.
        obstacle: why nothing may stand in the layer's place; None if something may.
    """

    module: nn.Module
    note: str = ""
    obstacle: str | None = None


@dataclass(frozen=True)
class _Computed:
    """A tensor of a layer that is computed: its name, by what, and from which parameters and buffers of its own."""

    name: str
    by: str
    value: torch.Tensor
    sources: dict[str, torch.Tensor]

    @property
    def makes_zeros(self) -> bool:
        """Whether more numbers are zero than in what they are computed from: then a mask made them so."""
        zeros = [int((source == 0).sum()) for source in self.sources.values() if source.shape == self.value.shape]
        return int((self.value == 0).sum()) > max(zeros, default=0)


def plain_type(module: nn.Module) -> type[nn.Module]:
    """The type of a layer, which for a parametrized one is that of before."""
    kind: type[nn.Module] = parametrize.type_before_parametrizations(module)
    return kind


def is_plain(module: nn.Module) -> bool:
    """Whether a layer's weight is a parameter as it is."""
    return not parametrize.is_parametrized(module) and not any(map(computes_weight, module._forward_pre_hooks.values()))


def computes_weight(hook: object) -> bool:
    """Whether a hook is one that makes a weight, and not the user's own."""
    return isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod)


def plain(module: nn.Module) -> Plain:
    """The plain layer that a layer amounts to. The layer is not changed."""
    if is_plain(module):
        return Plain(module)
    if any(isinstance(hook, BasePruningMethod) for hook in module._forward_pre_hooks.values()):
        fix = "torch.nn.utils.prune.remove makes it a layer that can be replaced"
        return Plain(module, obstacle=f"is pruned: a replacement would lose the zeros; {fix}")
    try:
        # In eval mode, and of a copy: the power iterations of spectral_norm change its state.
        computed = list(_computed(copied(module).eval()))
    except Exception as error:  # noqa: BLE001  # whatever a parametrization of the user's raises
        fix = "remove its parametrizations to have it replaced"
        return Plain(module, obstacle=f"its weight cannot be computed: {type(error).__name__}: {error}; {fix}")
    names = ", ".join(dict.fromkeys(item.by for item in computed))
    new = _rebuilt(module, computed)
    if any(item.makes_zeros for item in computed):
        fix = "torch.nn.utils.parametrize.remove_parametrizations makes it a layer that can be replaced"
        return Plain(new, obstacle=f"{names} makes zeros in its weight, which a replacement would lose; {fix}")
    return Plain(new, note=f"its {names} is folded")


def copied(model: nn.Module) -> nn.Module:
    """A deep copy, also of layers with hooks that compute weights.

    These leave the last weight in the layer, as a part of a graph of gradients, which PyTorch does not copy. The next
    run computes it again.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        if any(map(computes_weight, module._forward_pre_hooks.values())):
            attributes = [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
            memo.update((id(value), value.detach().clone()) for value in attributes if not value.is_leaf)
    return copy.deepcopy(model, memo)


@torch.no_grad()
def _computed(module: nn.Module) -> Iterator[_Computed]:
    """What is computed in a layer, which is a copy in eval mode."""
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for name, steps in module.parametrizations.items():
            assert isinstance(steps, parametrize.ParametrizationList)
            by = ", ".join(_name(step) for step in steps)
            own = (*steps.named_parameters(recurse=False), *steps.named_buffers(recurse=False))
            sources = {f"parametrizations.{name}.{key}": value for key, value in own}
            yield _Computed(name, by, getattr(module, name).detach().clone(), sources)
    parts: tuple[str, ...]
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):
            parts, value = ("orig", "u", "v"), hook.compute_weight(module, do_power_iteration=False)
        elif isinstance(hook, WeightNorm):
            parts, value = ("g", "v"), hook.compute_weight(module)
        else:
            continue
        sources = {f"{hook.name}_{part}": getattr(module, f"{hook.name}_{part}") for part in parts}
        yield _Computed(hook.name, _name(hook), value.detach().clone(), sources)


def _name(step: object) -> str:
    kind = type(step).__name__
    return _NAMES.get(kind, kind)


def _rebuilt(module: nn.Module, computed: list[_Computed]) -> nn.Module:
    """A layer of the plain type that shares all with `module` but what is computed, which are parameters now.

    PyTorch's own functions to remove a parametrization change the class of the layer, which its copies share.
    """
    kind = plain_type(module)
    new = kind.__new__(kind)
    new.__dict__.update(vars(module))
    gone = {key for item in computed for key in (item.name, *item.sources)}
    for key in gone:
        new.__dict__.pop(key, None)
    new._parameters = {key: value for key, value in module._parameters.items() if key not in gone}
    new._buffers = {key: value for key, value in module._buffers.items() if key not in gone}
    new._modules = {key: value for key, value in module._modules.items() if key != "parametrizations"}
    for hooks in ("_forward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks"):
        setattr(new, hooks, _users(getattr(module, hooks)))
    for item in computed:
        sources = item.sources.values()
        if any(isinstance(source, nn.Parameter) for source in sources):
            trains = any(source.requires_grad for source in sources)
            new.register_parameter(item.name, nn.Parameter(item.value, requires_grad=trains))
        else:
            new.register_buffer(item.name, item.value)
    return new


def _users(hooks: dict[int, Any]) -> OrderedDict[int, Any]:
    """The hooks that do not belong to the computation of a weight."""

    def belongs(hook: Any) -> bool:
        # Those on loading are wrapped, by PyTorch.
        return type(getattr(hook, "hook", hook)).__module__.startswith("torch.nn.utils.")

    return OrderedDict((key, hook) for key, hook in hooks.items() if not belongs(hook))
