"""Layers whose weight is computed, as plain ones."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from netopt.transform.reparametrized import copied, is_plain, plain, plain_type

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")

NORMS: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "weight_norm": ("weight_norm", parametrizations.weight_norm),
    "spectral_norm": ("spectral_norm", parametrizations.spectral_norm),
    "orthogonal": ("orthogonal", parametrizations.orthogonal),
    "old weight_norm": ("weight_norm", nn.utils.weight_norm),
    "old spectral_norm": ("spectral_norm", nn.utils.spectral_norm),
}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Linear(4, 5),
    "convolution": lambda: nn.Conv1d(4, 4, 3, stride=2, bias=False),
}


def x_for(layer: nn.Module) -> torch.Tensor:
    return torch.randn(2, 4) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_plain_layer_computes_what_the_layer_does_in_eval_mode(norm: str, make: str, training: bool) -> None:
    name, wrap = NORMS[norm]
    original = LAYERS[make]()
    kind, x = type(original), x_for(original)
    layer = wrap(original)
    layer(x)  # a step of spectral_norm's power iteration; and the old hooks leave a weight with gradients
    layer.train(training)
    state = copy.deepcopy(layer.state_dict())
    found = plain(layer)
    assert type(found.module) is kind
    assert (found.note, found.obstacle) == (f"its {name} is folded", None)
    assert set(found.module.state_dict()) == set(LAYERS[make]().state_dict())
    assert found.module.training is training
    assert found.module.bias is layer.bias
    assert found.module.weight.requires_grad
    # The layer is as it was, and so is the class that its copies share with it.
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    assert torch.equal(found.module(x), layer.eval()(x))


def test_gradients_that_are_off_stay_off() -> None:
    layer = parametrizations.weight_norm(nn.Linear(4, 5))
    layer.requires_grad_(False)
    assert not plain(layer).module.weight.requires_grad


def test_layers_that_are_plain_are_themselves() -> None:
    layer = nn.Linear(4, 5)
    layer.register_forward_pre_hook(lambda module, args: None)
    assert is_plain(layer)
    assert plain(layer).module is layer
    assert (plain(layer).note, plain(layer).obstacle, plain_type(layer)) == ("", None, nn.Linear)


def test_hooks_of_the_user_stay() -> None:
    seen: list[int] = []
    layer = nn.utils.spectral_norm(nn.Linear(4, 5))
    layer.register_forward_pre_hook(lambda module, args: seen.append(1))
    module = plain(layer).module
    module(torch.randn(1, 4))
    assert seen == [1]
    assert not module._state_dict_hooks and not module._load_state_dict_pre_hooks


@pytest.mark.parametrize("cut", [prune.l1_unstructured, prune.random_unstructured])
def test_pruned_layers_would_lose_their_zeros(cut: Callable[..., nn.Module]) -> None:
    layer = cut(nn.Linear(4, 5), "weight", amount=0.5)
    found = plain(layer)
    assert found.module is layer
    assert found.obstacle is not None
    assert found.obstacle.startswith("is pruned: a replacement would lose the zeros")
    assert plain(prune.remove(layer, "weight")).obstacle is None


class Mask(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask


def test_masks_as_parametrizations_would_lose_their_zeros_too() -> None:
    layer = nn.Linear(4, 5)
    layer.weight.data[0, 0] = 0.0
    parametrize.register_parametrization(layer, "weight", Mask(torch.ones(5, 4)))
    assert plain(layer).note == "its Mask is folded"  # a zero that was there before is nobody's
    layer.parametrizations.weight[0].mask[1, 2] = 0.0  # type: ignore[union-attr, index, operator]
    found = plain(layer)
    assert found.obstacle is not None
    assert found.obstacle.startswith("Mask makes zeros in its weight, which a replacement would lose; ")
    assert type(found.module) is nn.Linear


class Broken(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if weight.sum() < 1e9:
            raise RuntimeError("out of order")
        return weight


def test_a_weight_that_cannot_be_computed() -> None:
    layer = nn.Linear(4, 5)
    parametrize.register_parametrization(layer, "weight", Broken(), unsafe=True)
    found = plain(layer)
    assert found.module is layer
    assert found.obstacle is not None
    assert found.obstacle.startswith("its weight cannot be computed: RuntimeError: out of order; remove")


def test_several_parametrizations_are_named_in_turn() -> None:
    layer = parametrizations.weight_norm(nn.Linear(4, 5))
    parametrize.register_parametrization(layer, "bias", Mask(torch.ones(5)))
    found = plain(layer)
    assert found.note == "its weight_norm, Mask is folded"
    assert torch.equal(found.module.bias, layer.bias)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_layers_with_hooks_that_compute_weights_are_copied(norm: Callable[[nn.Module], nn.Module]) -> None:
    """PyTorch's deep copy refuses the weight that they leave behind."""
    model, x = nn.Sequential(norm(nn.Linear(4, 5)).eval()), torch.randn(2, 4)
    y = model(x)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    twin = copied(model)
    assert torch.equal(twin(x), y)
    assert {p.data_ptr() for p in twin.parameters()}.isdisjoint(p.data_ptr() for p in model.parameters())
