"""Flattened images before dense layers."""

from __future__ import annotations

import torch
from torch import nn

from netopt.graph import Graph, interpret
from netopt.graph.capture import capture
from netopt.graph.passes.permute_flattened_weights import permute_flattened_weights
from netopt.ops import Dense, Permute, Reshape


def ops(graph: Graph) -> list[type]:
    return [type(node.op) for node in graph.nodes]


class Net(nn.Module):
    def __init__(self, features: int, *, twice: bool = False, returned: bool = False) -> None:
        super().__init__()
        self.conv, self.twice, self.returned = nn.Conv2d(2, 3, 3), twice, returned
        self.fc, self.other = nn.Linear(features, 4), nn.Linear(features, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.conv(x).flatten(1)
        results = [self.fc(y)]
        results += [self.other(y)] if self.twice else []
        return (*results, y) if self.returned else tuple(results)


def test_the_columns_follow_the_pixels() -> None:
    x = torch.randn(2, 2, 6, 5)
    for twice in (False, True):
        graph, _ = capture(Net(36, twice=twice), x)
        result = permute_flattened_weights(graph)
        assert ops(result)[1:3] == [Permute, Reshape]
        assert result.nodes[1].op == Permute((0, 2, 3, 1))
        for before, after in zip(interpret(graph, [x]), interpret(result, [x]), strict=True):
            torch.testing.assert_close(before, after)  # the same products, summed in another order


def test_not_where_the_flat_image_is_read_by_others() -> None:
    x = torch.randn(2, 2, 6, 5)
    graph, _ = capture(Net(36, returned=True), x)
    assert permute_flattened_weights(graph).nodes == graph.nodes


def test_not_for_one_pixel_or_one_channel_or_an_input() -> None:
    for model, shape in (
        (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2)), (1, 2, 3, 3)),
        (nn.Sequential(nn.Conv2d(2, 1, 3), nn.Flatten(), nn.Linear(9, 2)), (1, 2, 5, 5)),
        (nn.Sequential(nn.Flatten(), nn.Linear(18, 2)), (1, 2, 3, 3)),
    ):
        graph, _ = capture(model, torch.randn(shape))
        assert permute_flattened_weights(graph).nodes == graph.nodes


def test_not_where_only_a_part_is_flattened() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 3, 3), nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x).flatten(2))

    graph, _ = capture(Partly(), torch.randn(1, 2, 5, 6))
    assert permute_flattened_weights(graph).nodes == graph.nodes
    assert any(isinstance(node.op, Dense) for node in graph.nodes)
