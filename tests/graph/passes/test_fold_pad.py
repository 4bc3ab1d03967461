"""Zeros around images become the padding of what reads them, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from netopt.graph import Graph, interpret, verify
from netopt.graph.capture import capture
from netopt.graph.passes.drop_dead_code import drop_dead_code
from netopt.graph.passes.drop_identities import drop_identities
from netopt.graph.passes.fold_pad import fold_pad
from netopt.ops import Conv2d, Pad, Pool2d
from tests.networks import Function

WEIGHT = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))

OTHER = WEIGHT.flip(3).contiguous()


def _folded(function: Callable[..., Any], *shape: int) -> Graph:
    """The graph after the pass, which computes the same in float64."""
    x = torch.randn(shape or (2, 3, 6, 7), generator=torch.Generator().manual_seed(0))
    graph = drop_dead_code(drop_identities(capture(Function(function).eval(), x)[0]))
    folded = fold_pad(graph)
    verify(folded)
    exact = interpret(graph, [x], dtype=torch.float64)
    for right, result in zip(exact, interpret(folded, [x], dtype=torch.float64), strict=True):
        torch.testing.assert_close(result, right, rtol=0.0, atol=1e-12)
    return folded


def _pads(graph: Graph) -> int:
    return sum(isinstance(node.op, Pad) for node in graph.nodes)


def test_into_a_convolution_that_pads_already() -> None:
    folded = _folded(lambda x: F.conv2d(F.pad(x, (1, 2, 0, 3)), WEIGHT, padding=(1, 0)))
    assert [node.op for node in folded.nodes] == [Conv2d(padding=(1, 4, 1, 2))]


def test_into_all_convolutions_that_read_it() -> None:
    def two(x: torch.Tensor) -> torch.Tensor:
        y = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(y, WEIGHT) + F.conv2d(y, OTHER)

    assert _pads(_folded(two)) == 0


def test_into_a_causal_convolution_of_sequences() -> None:
    folded = _folded(lambda x: F.conv1d(F.pad(x, (4, 0)), WEIGHT[:, :, 0], dilation=2), 2, 3, 9)
    (conv,) = (node.op for node in folded.nodes if isinstance(node.op, Conv2d))
    assert conv.padding == (0, 0, 4, 0)
    assert _pads(folded) == 0


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_into_an_average_that_counts_its_padding(padding: int, ceil_mode: bool) -> None:
    folded = _folded(lambda x: F.avg_pool2d(F.pad(x, (1, 2, 0, 3)), 3, 2, padding, ceil_mode))
    (node,) = folded.nodes
    assert isinstance(node.op, Pool2d)
    assert node.op.function == "average_of_all"


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_an_average_without_padding_counts_these_zeros_then(ceil_mode: bool) -> None:
    folded = _folded(lambda x: F.avg_pool2d(F.pad(x, (1, 2, 0, 3)), 3, 2, 0, ceil_mode, False))
    assert [node.op.function for node in folded.nodes if isinstance(node.op, Pool2d)] == ["average_of_all"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 2),
        lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2, 1, count_include_pad=False),
        lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), value=0.5), WEIGHT),
        lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), WEIGHT),
        lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1, 1, 0)), torch.cat([WEIGHT, WEIGHT[:, :1]], 1)),
        lambda x: (F.conv2d(F.pad(x, (1, 1, 1, 1)), WEIGHT), F.pad(x, (1, 1, 1, 1)).relu()),
    ],
)
def test_not_where_it_would_be_wrong(function: Callable[..., Any]) -> None:
    assert _pads(_folded(function)) > 0


def test_not_where_it_is_read_otherwise_too() -> None:
    def gate(x: torch.Tensor) -> Any:
        y = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(y, WEIGHT), y

    def also(x: torch.Tensor) -> Any:
        y = F.pad(x, (1, 1, 1, 1))
        return F.conv2d(y, WEIGHT), y.relu()

    assert _pads(_folded(gate)) == _pads(_folded(also)) == 1


def test_other_modes_of_convolutions_stay_a_pad() -> None:
    graph, _ = capture(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular").eval(), torch.randn(1, 3, 5, 5))
    assert [node.op.label for node in fold_pad(graph).nodes] == ["circular_pad", "conv2d"]
