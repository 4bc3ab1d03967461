"""Orders of execution: valid, never worse than the given one, the best where the graph is small."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import netopt
from netopt.graph import Graph, verify
from netopt.graph.graph import GraphBuilder
from netopt.memory import check_plan, order, order_for_memory, plan_memory
from netopt.memory.lifetimes import blocks_of
from netopt.memory.plan import lower_bound
from netopt.ops import Arithmetic, Concat, Dense, Op, Permute, Pointwise, Reshape, Slice, TensorType
from netopt.program.lower import prepare
from netopt.program.options import Lowering


class Branches(nn.Module):
    """Two branches with a wide middle each, written so that both middles are alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList([nn.Linear(16, 1024) for _ in range(2)])
        self.down = nn.ModuleList([nn.Linear(1024, 16) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middles = [layer(x).relu() for layer in self.up]
        first, second = (layer(middle) for layer, middle in zip(self.down, middles, strict=True))
        return torch.cat([first.softmax(1), second.softmax(1)], 1)


def peak(graph: Graph) -> int:
    return lower_bound(blocks_of(graph))


def test_one_branch_after_the_other() -> None:
    model, x = Branches(), torch.randn(4, 16)
    network = prepare(model, x, Lowering())
    # x, the result of the first branch and the middle of the second: 4 x 16, 4 x 16 and 4 x 1024 numbers.
    assert network.plan.arena_bytes == network.plan.lower_bound == 256 + 256 + 16_384
    torch.testing.assert_close(netopt.lower(model, x)(x), model(x))


def test_the_order_given_is_kept_where_none_is_better() -> None:
    builder = GraphBuilder()
    builder.inputs, builder.types = ("x",), {"x": TensorType((4, 16))}
    y = builder.add_node(Permute((1, 0)), ("x",), "y", "")
    builder.outputs = (builder.add_node(Pointwise("relu"), (y,), "z", ""),)
    graph = builder.finish()
    assert order_for_memory(graph) is graph


def random_graph(seed: int, nodes: int) -> Graph:
    """Values of very different sizes, in place where possible, views, several results."""
    choose = random.Random(seed)
    builder = GraphBuilder()
    builder.inputs = tuple(f"x{i}" for i in range(choose.randint(1, 2)))
    builder.types = {name: TensorType((8, choose.choice([8, 64]))) for name in builder.inputs}
    values = list(builder.inputs)
    for number in range(nodes):
        x = choose.choice(values)
        shape = builder.types[x].shape
        same = choose.choice([value for value in values if builder.types[value].shape == shape])
        calls: list[tuple[Op, tuple[str, ...]]] = [
            (Pointwise("relu"), (x,)),
            (Arithmetic("add"), (x, same)),
            (Permute((1, 0)), (x,)),
            (Reshape((shape[1], shape[0])), (x,)),
            (Slice(0, 0, max(1, shape[0] // 2)), (x,)),
            (Slice(1, 0, max(1, shape[1] // 4)), (x,)),
            (Dense(), (x, builder.add_constant("w", torch.ones(choose.choice([8, 96]), shape[1])))),
        ]
        if shape[0] <= 32:
            calls.append((Concat(0), (x, same)))
        op, inputs = choose.choice(calls)
        values.append(builder.add_node(op, inputs, f"v{number}", ""))
    builder.outputs = (values[-1], *choose.sample(values, choose.randint(0, 1)))
    return builder.finish()


def all_orders(graph: Graph) -> Iterator[Graph]:
    """The graph in each valid order of its nodes."""
    for nodes in itertools.permutations(graph.nodes):
        known = {*graph.inputs, *graph.constants}
        for node in nodes:
            if not known.issuperset(node.inputs):
                break
            known.add(node.output)
        else:
            yield Graph(graph.inputs, graph.outputs, nodes, graph.types, graph.constants)


@given(seed=st.integers(0, 2**32), nodes=st.integers(1, 25))
@settings(derandomize=True, deadline=None, max_examples=150)
def test_random_graphs_stay_what_they_are_and_get_no_larger(seed: int, nodes: int) -> None:
    graph = random_graph(seed, nodes)
    ordered = order_for_memory(graph)
    verify(ordered)
    assert sorted(node.output for node in ordered.nodes) == sorted(node.output for node in graph.nodes)
    assert peak(ordered) <= peak(graph)
    plan = plan_memory(ordered)
    check_plan(ordered, plan)
    assert plan.arena_bytes <= plan_memory(graph).arena_bytes


@given(seed=st.integers(0, 2**32), nodes=st.integers(1, 6))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_no_order_of_a_small_graph_is_better(seed: int, nodes: int) -> None:
    graph = random_graph(seed, nodes)
    best = min(peak(other) for other in all_orders(graph))
    ordered = order_for_memory(graph)
    if plan_memory(graph).arena_bytes > best:
        assert peak(ordered) == best


def test_small_graphs_have_better_orders_than_the_given() -> None:
    """So that the property above says something."""
    graphs = [random_graph(seed, 6) for seed in range(60)]
    assert sum(order_for_memory(graph) is not graph for graph in graphs) > 5


def test_too_many_sets_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running next what leaves the least alive finds the good order of the two branches, too."""
    monkeypatch.setattr(order, "_MOST_SETS", 1)
    assert prepare(Branches(), torch.randn(4, 16), Lowering()).plan.arena_bytes == 256 + 256 + 16_384
