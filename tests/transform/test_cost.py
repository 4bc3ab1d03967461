"""Costs of layers: numbers of weights, and multiply-adds by shape, equal to those of the lowered network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import netopt
from netopt.errors import InvalidArgument
from netopt.transform.cost import Cost

LAYERS = {
    "dense": (nn.Linear(6, 5), (4, 6), 4 * 30),
    "dense with leading axes": (nn.Linear(6, 5, bias=False), (2, 3, 4, 6), 24 * 30),
    "conv1d": (nn.Conv1d(3, 8, 3), (2, 3, 10), 2 * 8 * (3 * 8 * 3)),
    "conv2d": (nn.Conv2d(3, 8, 3, padding=1), (1, 3, 7, 5), 35 * (3 * 8 * 9)),
    "conv2d with strides": (nn.Conv2d(4, 8, 3, stride=(2, 1)), (2, 4, 9, 9), 2 * 4 * 7 * (4 * 8 * 9)),
    "conv2d with groups": (nn.Conv2d(8, 4, (1, 3), groups=4), (1, 8, 5, 5), 15 * (2 * 4 * 3)),
    "depthwise conv2d": (nn.Conv2d(8, 16, 3, groups=8, dilation=2), (1, 8, 6, 6), 4 * (16 * 9)),
    "conv2d with padding same": (nn.Conv2d(4, 8, (3, 2), padding="same"), (2, 4, 9, 8), 2 * 72 * (4 * 8 * 6)),
    "conv2d with padding valid": (nn.Conv2d(4, 8, 3, padding="valid", dilation=2), (1, 4, 9, 8), 20 * (4 * 8 * 9)),
    "transposed conv1d": (nn.ConvTranspose1d(6, 4, 4, stride=2), (1, 6, 5), 5 * (6 * 4 * 4)),
    "transposed conv2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (2, 4, 5, 6), 60 * (4 * 6 * 9)),
    "transposed conv2d with groups": (nn.ConvTranspose2d(4, 6, 2, groups=2), (1, 4, 3, 3), 9 * (4 * 3 * 4)),
    "nested": (
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Flatten(), nn.Linear(64, 2)),
        (1, 2, 6, 6),
        16 * (2 * 3 * 9) + 16 * (3 * 4) + 64 * 2,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_multiply_adds_are_those_of_the_program(name: str) -> None:
    layer, shape, expected = LAYERS[name]
    cost = Cost.of(layer, [torch.Size(shape)])
    assert cost == Cost(sum(parameter.numel() for parameter in layer.parameters()), expected)
    assert netopt.lower(layer, torch.zeros(shape)).multiply_adds == expected


def test_without_shapes_one_vector_or_one_position() -> None:
    assert Cost.of(nn.Linear(6, 5)) == Cost(35, 30)
    assert Cost.of(nn.Conv2d(3, 8, 3, bias=False)) == Cost(216, 216)
    assert Cost.of(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))) == Cost(45, 30)


def test_calls_add_up() -> None:
    shapes = [torch.Size((4, 6)), torch.Size((1, 6))]
    assert Cost.of(nn.Linear(6, 5), shapes) == Cost(35, 5 * 30)
    assert Cost(1, 2) + Cost(30, 40) == Cost(31, 42)


def test_unbatched_images() -> None:
    assert Cost.of(nn.Conv2d(3, 8, 3), [torch.Size((3, 5, 5))]) == Cost(224, 9 * 216)


def test_a_layer_called_twice_inside_counts_twice() -> None:
    shared = nn.Linear(4, 4, bias=False)
    assert Cost.of(nn.Sequential(shared, nn.ReLU(), shared), [torch.Size((3, 4))]) == Cost(16, 2 * 3 * 16)


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(input=x)


def test_layers_called_by_keyword() -> None:
    assert Cost.of(ByKeyword(), [torch.Size((3, 4))]) == Cost(8, 3 * 8)


def test_in_eval_mode() -> None:
    """In training mode batch normalization refuses a batch of one."""
    module = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    assert Cost.of(module, [torch.Size((1, 4))]) == Cost(14, 8)
    assert module.training
    assert module[1].num_batches_tracked == 0


def test_the_module_and_random_numbers_are_left_alone() -> None:
    module, state = nn.Sequential(nn.Linear(4, 2), nn.Dropout()).double(), torch.get_rng_state()
    before = copy.deepcopy(module.state_dict())
    assert Cost.of(module, [torch.Size((1, 4))]).multiply_adds == 8
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not module[0]._forward_hooks
    assert torch.equal(torch.get_rng_state(), state)


class Clock(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.sum())


def test_a_module_that_needs_values_is_a_clear_error() -> None:
    with pytest.raises(InvalidArgument, match=r"cost of a Clock: expected a module .* override Technique.cost"):
        Cost.of(Clock(), [torch.Size((2,))])
    assert Cost.of(Clock()) == Cost(0, 0)


class Odd(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else -super().forward(x)


class OddConv(nn.Conv3d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("called")


def test_a_subclass_costs_what_the_layer_does_and_is_not_called() -> None:
    assert Cost.of(Odd(4, 2), [torch.Size((3, 4))]) == Cost(10, 3 * 8)
    assert Cost.of(OddConv(2, 3, 2, stride=2), [torch.Size((1, 2, 5, 4, 4))]) == Cost(51, 8 * 48)


def test_hooks_of_the_user_are_not_called() -> None:
    """On the meta device those that look at values would fail."""
    called: list[float] = []
    for module in (nn.Linear(4, 2, bias=False), nn.Sequential(nn.Linear(4, 2, bias=False), nn.ReLU())):
        for part in module.modules():
            part.register_forward_pre_hook(lambda _, args: called.append(float(args[0].sum())))
            part.register_forward_pre_hook(lambda _, args, kwargs: called.append(1.0), with_kwargs=True)
            part.register_forward_hook(lambda _, args, output: called.append(float(output.sum())))
        assert Cost.of(module, [torch.Size((3, 4))]) == Cost(8, 24)
        assert all(len(part._forward_pre_hooks) == 2 for part in module.modules())
    assert called == []


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("inside", [False, True])
def test_hooks_that_make_the_weight_stay(inside: bool) -> None:
    layer = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        nn.utils.weight_norm(layer)
    module = nn.Sequential(layer, nn.ReLU()) if inside else layer
    assert Cost.of(module, [torch.Size((3, 4))]) == Cost(8 + 2, 24)
