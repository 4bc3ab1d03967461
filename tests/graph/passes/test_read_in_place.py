"""Views as operands and results of matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import netopt
from netopt.graph import Graph, interpret
from netopt.graph.capture import capture
from netopt.ops import Matmul, Permute, View
from tests.graph.test_aten import Model
from tests.pipelines import run_passes


def lowered(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Graph:
    """The graph after all passes; it and the program agree with the model."""
    model = Model(function).eval()
    inputs = tuple(torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes))
    graph = run_passes(capture(model, inputs)[0])
    torch.testing.assert_close(interpret(graph, inputs)[0], model(*inputs))
    torch.testing.assert_close(netopt.lower(model, inputs)(*inputs), model(*inputs))
    return graph


def test_a_transposed_operand_is_a_view() -> None:
    (node,) = lowered(lambda x, y: x @ y.mT, (2, 3, 5), (2, 4, 5)).nodes
    assert node.op == Matmul(1.0, None, View((2, 5, 4), (20, 1, 5)))


def test_slices_and_broadcasts_are_views() -> None:
    (node,) = lowered(lambda x, y: x[:, 1:3, ::2] @ y.expand(2, 3, 7), (2, 4, 6), (3, 7)).nodes
    assert node.op == Matmul(1.0, View((2, 2, 3), (24, 6, 2), 6), View((2, 3, 7), (0, 7, 1)))


def test_the_result_is_written_permuted() -> None:
    (node,) = lowered(lambda x, y: (x @ y).transpose(0, 1), (2, 3, 5), (2, 5, 4)).nodes
    assert node.op == Matmul(axes=(1, 0, 2))


def test_rows_are_not_written_as_columns() -> None:
    graph = lowered(lambda x, y: (x @ y).mT, (2, 3, 5), (2, 5, 4))
    assert [type(node.op) for node in graph.nodes] == [Matmul, Permute]


def _product_and_its_permutation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    product = x @ y
    return product.transpose(0, 1) + product


def test_a_result_that_others_read_is_written_as_it_is() -> None:
    graph = lowered(_product_and_its_permutation, (3, 3, 5), (3, 5, 4))
    assert [node.op for node in graph.nodes if isinstance(node.op, Matmul)] == [Matmul()]


def test_a_reshape_without_strides_is_copied() -> None:
    graph = lowered(lambda x, y: x.mT.reshape(2, 4, 6) @ y, (2, 3, 8), (6, 5))
    assert [type(node.op) for node in graph.nodes][-1] == Matmul
    assert any(isinstance(node.op, Permute) for node in graph.nodes)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_transformer_layers_copy_no_heads(batch: int, batch_first: bool) -> None:
    """nn.TransformerEncoderLayer; batch first it permutes tokens and batch around its attention."""
    layer = torch.nn.TransformerEncoderLayer(12, 3, 24, batch_first=batch_first).eval()
    x = torch.randn((batch, 7, 12) if batch_first else (7, batch, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = layer(x)
    torch.testing.assert_close(netopt.lower(layer, x)(x), expected, rtol=1e-5, atol=1e-5)
    graph = run_passes(capture(layer, x)[0])
    permutes = sum(isinstance(node.op, Permute) for node in graph.nodes)
    assert permutes == (2 if batch_first and batch > 1 else 0)


@pytest.mark.parametrize("weights", [False, True])
def test_multihead_attention(weights: bool) -> None:
    class SelfAttention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
            return self.attention(x, memory, memory, need_weights=weights, average_attn_weights=False)[0]

    model = SelfAttention().eval()
    inputs = (torch.randn(2, 7, 12), torch.randn(2, 5, 12))
    with torch.no_grad():
        torch.testing.assert_close(netopt.lower(model, inputs)(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)
