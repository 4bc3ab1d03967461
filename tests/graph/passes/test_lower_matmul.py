"""Products with constant matrices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from netopt.graph import Graph, interpret
from netopt.graph.capture import capture
from netopt.ops import Arithmetic, Dense, Matmul, Pointwise, Reshape
from tests.pipelines import run_passes


class Model(nn.Module):
    """A function of x, a weight (6, 5) and a bias (5,)."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 5, generator=generator))
        self.bias = nn.Parameter(torch.randn(5, generator=generator))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.weight, self.bias)


def lowered(function: Callable[..., torch.Tensor], *shape: int) -> Graph:
    model, x = Model(function).eval(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    graph = run_passes(capture(model, x)[0])
    with torch.no_grad():
        torch.testing.assert_close(interpret(graph, [x])[0], model(x))
    return graph


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (lambda x, w, b: x @ w, Dense()),
        (lambda x, w, b: x @ w + b, Dense(has_bias=True)),
        (lambda x, w, b: (b[None] + x @ w).relu(), Dense(True, False, Pointwise("relu"))),
        (lambda x, w, b: torch.addmm(b, x[0], w), Dense(has_bias=True)),
        (lambda x, w, b: x @ w[None], Dense()),
        (lambda x, w, b: x + x @ w[:, :1], Dense(has_residual=False)),
    ],
)
def test_a_constant_matrix_is_a_weight(function: Callable[..., torch.Tensor], op: Dense) -> None:
    graph = lowered(function, 3, 4, 6)
    assert [node.op for node in graph.nodes if isinstance(node.op, Dense | Matmul)] == [op]


def test_einsum_with_a_constant_is_dense() -> None:
    graph = lowered(lambda x, w, b: torch.einsum("nctw,wv->nctv", x, w), 2, 3, 4, 6)
    assert [type(node.op) for node in graph.nodes] == [Reshape, Dense, Reshape]


def test_what_stays_a_product() -> None:
    graph = lowered(lambda x, w, b: w @ x, 5, 3)
    assert [type(node.op) for node in graph.nodes] == [Matmul]
    graph = lowered(lambda x, w, b: x @ w[None, None], 4, 6)  # adds axes
    assert [type(node.op) for node in graph.nodes] == [Matmul]


def test_a_sum_that_others_read_or_that_broadcasts_is_no_bias() -> None:
    graph = lowered(lambda x, w, b: (x @ w) * (x @ w + b), 4, 6)
    assert Arithmetic("mul") in [node.op for node in graph.nodes]
    graph = lowered(lambda x, w, b: x @ w + b[None, None], 4, 6)  # the bias adds an axis
    assert [node.op for node in graph.nodes] == [Dense(), Arithmetic("add")]
