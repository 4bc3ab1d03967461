"""What is computed from constants alone is computed once, when lowering: whatever its ops and types are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt.graph.capture import capture
from tests.pipelines import run_passes


class Model(nn.Module):
    """A function of itself and x; it has a table, a dense layer and a bias that is an index of the table."""

    def __init__(self, function: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.table = nn.Embedding(12, 6)
        self.fc = nn.Linear(6, 6)
        self.order = nn.Buffer(torch.tensor([2, 0, 1, 5, 4, 3]))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


CASES: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "arange": lambda m, x: x + torch.arange(x.shape[-1]),
    "position ids": lambda m, x: x + m.table(torch.arange(x.shape[0]).expand(1, -1)[0]),
    "zeros, ones, full, eye": lambda m, x: (
        (x + torch.zeros(6) + torch.ones(4, 1) * torch.full((6,), 0.5)) @ torch.eye(6)
    ),
    "like x": lambda m, x: x + torch.ones_like(x) * 2 + torch.zeros_like(x) + torch.full_like(x, 3.0),
    "new of x": lambda m, x: x + x.new_zeros(6) + x.new_ones((4, 6)) * x.new_full((1,), 2.0),
    "repeat and tile": lambda m, x: x + torch.tensor([1.0, 2.0]).repeat(4, 3) + torch.tensor([1.0, 2.0]).tile(3),
    "compared": lambda m, x: x * (torch.arange(6) > 2) + (m.order == 4),
    "indexed": lambda m, x: x + m.fc.bias[m.order] + m.table.weight[m.order[:4]],
    "sorted": lambda m, x: x + m.fc.bias.sort().values + m.table.weight[:, 0].topk(6).values,
    "linear algebra": lambda m, x: x @ torch.linalg.inv(m.fc.weight + 3 * torch.eye(6)),
    "weight_norm": lambda m, x: F.linear(x, torch._weight_norm(m.fc.weight, m.fc.weight[:, :1].abs(), 0)),
    "in float64": lambda m, x: x + (m.fc.bias.double() * 2).sin().float(),
    "mesh": lambda m, x: x[None] + torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")),
    "shape of what is known": lambda m, x: x + torch.nonzero(m.order > 2).sum() * torch.ones(len(m.order)),
    "a number of what is known": lambda m, x: x * m.order.max().item(),
    "chosen": lambda m, x: torch.where(m.order > 2, x, -x),
    "masked": lambda m, x: x.masked_fill(torch.ones(4, 6, dtype=torch.bool).triu(1), -2.0),
    "complex": lambda m, x: x * torch.polar(torch.ones(6), torch.arange(6.0)).real,
    "split": lambda m, x: x * m.order.split([2, 4])[1].sum() + m.order.chunk(2)[0].sum(),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fallback", [False, True])
def test_it_is_a_constant(name: str, fallback: bool) -> None:
    model, x = Model(CASES[name]).eval(), torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    program = netopt.lower(model, x, fallback=fallback)
    assert program.fallbacks == ()
    with torch.no_grad():
        # Sums of 7 terms of sizes below 64, and a weight that is computed in another order.
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=7 * 64 * 2.0**-24)


def test_random_numbers_are_no_constants() -> None:
    model = Model(lambda m, x: x + torch.rand(6))
    with pytest.raises(netopt.UnsupportedModel, match="op 'aten.rand.default' is not lowered"):
        capture(model, torch.randn(4, 6))


def test_what_cannot_be_computed_is_told_by_the_op() -> None:
    """An index out of range of what is known, which PyTorch refuses as well."""
    model = Model(lambda m, x: x + m.table(m.order * 9)[:4])
    with pytest.raises(netopt.UnsupportedModel, match="indices: expected -12 to 11, found 18"):
        capture(model, torch.randn(4, 6))


def test_values_are_those_of_the_shape_alone() -> None:
    """No memory is taken for what stands for an input, however large."""
    graph = run_passes(capture(Model(lambda m, x: x[:, 0] + torch.zeros_like(x).sum(1)), torch.randn(4, 6))[0])
    assert {node.op.name for node in graph.nodes} == {"slice", "reshape", "arithmetic"}
