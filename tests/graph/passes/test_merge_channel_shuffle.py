"""A shuffle of channels is one op, however the model writes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from netopt.graph import Graph, interpret, verify
from netopt.graph.capture import capture
from netopt.graph.passes.drop_dead_code import drop_dead_code
from netopt.graph.passes.merge_channel_shuffle import merge_channel_shuffle
from netopt.ops import ChannelShuffle, Relayout
from tests.networks import Function
from tests.pipelines import run_passes


def _merged(function: Callable[..., torch.Tensor]) -> Graph:
    x = torch.arange(2.0 * 6 * 4 * 5).reshape(2, 6, 4, 5)
    graph, _ = capture(Function(function).eval(), x)
    merged = drop_dead_code(merge_channel_shuffle(graph))
    verify(merged)
    assert torch.equal(interpret(merged, [x])[0], function(x))
    return merged


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(2, 3, 2, 4, 5).transpose(1, 2).contiguous().view(2, 6, 4, 5),
        lambda x: x.reshape(2, 3, 2, 20).permute(0, 2, 1, 3).reshape(2, -1, 4, 5),
        lambda x: x.unflatten(1, (3, 2)).transpose(1, 2).flatten(1, 2),
    ],
)
def test_reshape_permute_reshape(function: Callable[..., torch.Tensor]) -> None:
    assert [node.op for node in _merged(function).nodes] == [ChannelShuffle(3)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(2, 3, 2, 4, 5).transpose(1, 2).reshape(2, 6, 5, 4),
        lambda x: x.view(2, 3, 2, 4, 5).permute(0, 2, 1, 4, 3).reshape(2, 6, 4, 5),
        lambda x: x.view(2, 3, 8, 5).permute(0, 2, 1, 3).reshape(2, 6, 4, 5),
        lambda x: x.view(3, 2, 2, 4, 5).transpose(1, 2).reshape(2, 6, 4, 5),
        lambda x: x.view(2, 3, 2, 4, 5).transpose(0, 2).reshape(2, 6, 4, 5),
    ],
)
def test_other_orders_are_no_shuffle(function: Callable[..., torch.Tensor]) -> None:
    assert not any(isinstance(node.op, ChannelShuffle) for node in _merged(function).nodes)


def test_a_shuffle_between_convolutions_needs_no_copy() -> None:
    first, second = torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 3, padding=1)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            return self.second(y.view(1, 2, 4, *y.shape[2:]).transpose(1, 2).reshape(y.shape))

    graph = run_passes(capture(Net().eval(), torch.randn(1, 3, 8, 8))[0])
    assert not any(isinstance(node.op, Relayout) for node in graph.nodes)
