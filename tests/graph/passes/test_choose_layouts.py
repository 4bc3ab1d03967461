"""Layouts: images channels last with their halos, and copies only where another order is needed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from netopt.graph import Graph, interpret, verify
from netopt.graph.capture import capture
from netopt.graph.passes.choose_layouts import choose_layouts
from netopt.ops import ROW_MAJOR, Conv2d, Layout, Op, Relayout
from tests.pipelines import run_passes


def lowered(model: nn.Module, *shape: int) -> Graph:
    return run_passes(capture(model, torch.randn(shape))[0])


def layouts_of(graph: Graph, kind: type[Op]) -> list[Layout]:
    return [graph.types[node.output].layout for node in graph.nodes if isinstance(node.op, kind)]


def copies(graph: Graph) -> int:
    return sum(isinstance(node.op, Relayout) for node in graph.nodes)


def test_a_network_without_images_is_left_alone() -> None:
    graph, _ = capture(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4))
    assert choose_layouts(graph) is graph


def test_an_image_has_the_halo_that_its_reader_pads() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, (3, 5), padding=(1, 2)), nn.Conv2d(8, 4, 1))
    graph = lowered(model, 1, 3, 12, 12)
    assert graph.types[graph.inputs[0]].layout == Layout(True)
    assert layouts_of(graph, Conv2d) == [Layout(True, (1, 1, 2, 2)), Layout(True), Layout(True)]
    assert copies(graph) == 0


def test_the_largest_halo_wins() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 5, padding=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) + self.b(x)

    graph = lowered(Two(), 1, 3, 8, 8)
    assert graph.types[graph.inputs[0]].layout == Layout(True, (2, 2, 2, 2))


def test_a_whole_residual_network_needs_no_copy() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8 * 25, 5)
            self.gate = nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.max_pool2d(self.stem(x).relu(), 2)
            y = (y + self.conv(y)).relu()
            y = y * self.gate(F.adaptive_avg_pool2d(y, 1)).sigmoid()
            return self.fc(torch.cat([y[:, :4], y[:, 4:]], 1).flatten(1))

    graph = lowered(Net(), 2, 3, 12, 12)
    assert copies(graph) == 0


def test_one_pixel_is_row_major_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.Flatten())
    graph = lowered(model, 2, 3, 6, 6)
    assert layouts_of(graph, Conv2d) == [Layout(True), ROW_MAJOR]
    assert copies(graph) == 0


def test_copies_where_another_order_is_needed_and_one_for_all_readers() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y.softmax(-1) + y.softmax(2)

    graph = lowered(Rows(), 1, 3, 6, 6)
    assert copies(graph) == 1


def test_a_reshaped_value_is_copied_into_the_halo() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.conv = nn.Linear(6, 2 * 16), nn.Conv2d(2, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.fc(x).reshape(-1, 2, 4, 4))

    graph = lowered(Folded(), 5, 6)
    assert layouts_of(graph, Relayout) == [Layout(True, (1, 1, 1, 1))]


def test_values_and_types_stay_what_they_were() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.AvgPool2d(2)), torch.randn(2, 3, 6, 8)
    graph, _ = capture(model, x)
    result = choose_layouts(graph)
    verify(result)
    assert torch.equal(interpret(result, [x])[0], interpret(graph, [x])[0])
    assert {n: t.logical for n, t in result.types.items()} == dict(graph.types)
