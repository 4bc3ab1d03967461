"""Where the layers stand that a technique handles, and what keeps it from replacing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import nn
from torch.nn.utils import parametrize

from netopt.errors import InvalidType
from netopt.transform.cost import Cost
from netopt.transform.reparametrized import computes_weight, plain, plain_type
from netopt.transform.select import WEIGHTED, Layer, layers_of

Shapes = dict[str, tuple[torch.Size, ...]]


@dataclass(frozen=True)
class Site:
    """A place in the model that a technique handles.

    Attributes:
        layer: the layer as techniques get it: one whose weight is computed, as a plain one.
        standing: the module that stands there.
        note: what a replacement does to it beside replacing it, for the report; empty in general.
        obstacle: why it must stay as it is; None if it need not.
    """

    layer: Layer
    standing: nn.Module
    note: str = ""
    obstacle: str | None = None

    def in_model(self, model: nn.Module) -> Site:
        """The same place in the model as it is now: training may have returned another one.

        Raises:
            InvalidType: something else stands there.
        """
        try:
            standing = model.get_submodule(self.layer.name)
        except AttributeError:
            standing = None
        if standing is None or type(standing) is not type(self.standing):
            raise InvalidType(
                "recover",
                expected=f"a model with the layers it was given, here a {type(self.standing).__name__}",
                found="none" if standing is None else f"a {type(standing).__name__}",
                layer=self.layer.name,
            )
        return replace(self, layer=replace(self.layer, module=plain(standing).module), standing=standing)


def sites_of(model: nn.Module, handles: Sequence[type[nn.Module]]) -> list[Site]:
    """The places of the layers of exactly these types, in the order of registration."""
    obstacles = _obstacles(model)
    sites = []
    for layer in layers_of(model):
        if plain_type(layer.module) in handles:
            found = plain(layer.module)
            obstacle = obstacles.get(layer.module, found.obstacle)
            sites.append(Site(replace(layer, module=found.module), layer.module, found.note, obstacle))
    return sites


def cost_of_network(model: nn.Module, shapes: Shapes) -> Cost:
    """The cost of all dense and convolution layers."""
    weighted = [layer for layer in layers_of(model) if isinstance(layer.module, WEIGHTED)]
    costs = [Cost.of(plain(layer.module).module, shapes.get(layer.name, ())) for layer in weighted]
    return reduce(Cost.__add__, costs, Cost(0, 0))


def _obstacles(model: nn.Module) -> dict[nn.Module, str]:
    """Why some layers cannot be replaced by any technique: what they do beside computing their output would be lost."""
    owners: dict[int, set[nn.Module]] = {}
    names: dict[int, list[str]] = {}
    layer_of = _layers_of_parametrizations(model)
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), set()).add(module)
            names.setdefault(id(parameter), []).append(f"{name}.{key}" if name else key)
    result = {}
    for module in model.modules():
        if _has_hooks(module):
            result[module] = "has hooks, which a replacement would lose"
        for key, parameter in module.named_parameters(recurse=False):
            if len(owners[id(parameter)]) > 1:
                shared = f"its {key} is shared: {', '.join(sorted(names[id(parameter)]))}"
                result[layer_of.get(module, module)] = shared
    return result


def _layers_of_parametrizations(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """For each module inside a layer's parametrizations that layer, to which their tensors belong."""
    return {
        part: layer
        for layer in model.modules()
        if parametrize.is_parametrized(layer) and isinstance(layer.parametrizations, nn.ModuleDict)
        for part in layer.parametrizations.modules()
    }


def _has_hooks(module: nn.Module) -> bool:
    """Whether a layer has hooks other than those that compute its weight."""
    before = [hook for hook in module._forward_pre_hooks.values() if not computes_weight(hook)]
    return bool(before or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks)
