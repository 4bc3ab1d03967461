"""Numbers that matrix products are multiplied by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from netopt.graph import Graph, interpret
from netopt.graph.capture import capture
from netopt.ops import Matmul
from tests.graph.test_aten import Model
from tests.pipelines import run_passes


def lowered(function: Callable[..., torch.Tensor]) -> Graph:
    model = Model(function).eval()
    inputs = tuple(torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(2))
    graph = run_passes(capture(model, inputs)[0])
    torch.testing.assert_close(interpret(graph, inputs)[0], model(*inputs))
    return graph


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (x @ y) * 0.5,
        lambda x, y: (x @ y) / 2,
        lambda x, y: (x * 0.5) @ y,
        lambda x, y: x @ (y / 2),
        lambda x, y: x @ (y.mT * 0.5),
        lambda x, y: (x * 0.25).mT @ (y * 2),
    ],
)
def test_a_number_goes_into_the_product(function: Callable[..., torch.Tensor]) -> None:
    (node,) = lowered(function).nodes
    assert isinstance(node.op, Matmul)
    assert node.op.scale == 0.5


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: (z := x @ y) * 0.5 + z,  # the product is read unscaled, too
        lambda x, y: (z := x * 0.5) @ y + z,
        lambda x, y: (x @ y) * y,
        lambda x, y: 2 - (x @ y),
    ],
)
def test_what_is_read_elsewhere_or_is_no_number_stays(function: Callable[..., torch.Tensor]) -> None:
    graph = lowered(function)
    assert all(node.op.scale == 1.0 for node in graph.nodes if isinstance(node.op, Matmul))


def test_a_number_that_another_has_hidden_from_the_product_goes_into_it_too() -> None:
    (node,) = lowered(lambda x, y: x @ (((y * 0.5).mT * 4) / 8)).nodes
    assert isinstance(node.op, Matmul)
    assert node.op.scale == 0.25
