from __future__ import annotations

import torch
from torch import nn

import netopt
from netopt import zoo
from netopt.graph import Graph
from netopt.graph.capture import capture
from netopt.graph.passes import run_passes as run
from netopt.graph.passes.write_concat_in_place import write_concat_in_place
from netopt.memory import copies_for_memory, order_for_memory, plan_memory
from netopt.ops import Concat
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from netopt.program.pipeline import pipeline
from tests.pipelines import PASSES, run_passes
from tests.tolerance import assert_within, judge


class UNet(nn.Module):
    """One level: what is computed first is joined with what is computed last, and a wide part lies between."""

    def __init__(self, skipped: int, wide: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, skipped, 3, padding=1)
        self.down = nn.Sequential(nn.Conv2d(skipped, wide, 1), nn.ReLU(), nn.Conv2d(wide, wide, 1), nn.ReLU())
        self.up = nn.Conv2d(wide, skipped, 3, padding=1)
        self.head = nn.Conv2d(2 * skipped, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        early = self.stem(x).relu()
        y: torch.Tensor = self.head(torch.cat([early, self.up(self.down(early))], 1))
        return y


def _in_place(graph: Graph) -> list[bool]:
    return [node.op.in_place for node in graph.nodes if isinstance(node.op, Concat)]


def _arena(graph: Graph) -> int:
    return plan_memory(order_for_memory(graph)).arena_bytes


def test_copies_are_kept_where_they_save_memory() -> None:
    model, x = UNet(16, 64).eval(), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    in_place = run_passes(capture(model, x)[0])
    network = prepare(model, x, Lowering())
    assert (_in_place(in_place), _in_place(network.graph)) == ([True], [False])
    # Two wide images, and beside them what is skipped, or twice that.
    assert network.plan.arena_bytes < 0.95 * _arena(in_place)
    (bounded,) = judge(network.graph, [x])
    assert_within(netopt.lower(model, x)(x), bounded)


def test_a_small_saving_is_not_worth_a_copy() -> None:
    model, x = UNet(2, 128).eval(), torch.randn(1, 3, 16, 16)
    network = prepare(model, x, Lowering())
    assert _in_place(network.graph) == [True]
    copies = run(capture(model, x)[0], PASSES[:-1])
    assert _in_place(copies) == [False]
    assert 0.98 * network.plan.arena_bytes <= _arena(copies) < network.plan.arena_bytes


def test_only_what_costs_memory_is_copied() -> None:
    """At this size DenseNet-121 needs a smaller arena with copies, but not for every one of its 58 concatenations."""
    model, x = zoo.densenet121().eval(), torch.randn(1, 3, 32, 32)
    graph = capture(model, x)[0]
    in_place = run_passes(graph)
    chosen = run(graph, pipeline(Lowering()))
    assert _arena(chosen) < 0.98 * _arena(in_place)
    assert 0 < _in_place(chosen).count(False) <= 3
    assert all(_in_place(in_place))


def test_networks_that_lose_nothing_stay_in_place() -> None:
    graph = prepare(zoo.squeezenet1_1().eval(), torch.randn(1, 3, 64, 64), Lowering()).graph
    assert all(_in_place(graph))


def test_a_graph_without_concatenations_is_as_it_was() -> None:
    graph = run_passes(capture(nn.Linear(3, 4), torch.randn(1, 3))[0])
    assert copies_for_memory(graph) == frozenset()
    assert write_concat_in_place(graph, copies_for_memory) is graph
