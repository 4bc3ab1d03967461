"""Between 1-D convolutions all is computed on images of height 1: with the same results, and without copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt.graph import interpret, verify
from netopt.graph.capture import capture
from netopt.graph.passes.drop_identities import drop_identities
from netopt.graph.passes.fold_constants import fold_constants
from netopt.graph.passes.read_sequences_as_images import read_sequences_as_images
from netopt.ops import Reduce


class Model(nn.Module):
    """A function of what a convolution of 4 channels writes, before another one."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.first, self.last = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(channels, 5, 2)
        self.norm = nn.BatchNorm1d(4).eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.function(self.norm(self.first(x))))
        return y


COLUMN, ROW = torch.tensor([[0.5], [1.0], [-1.0], [2.0]]), torch.linspace(-1, 1, 10)

CASES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
    "pointwise": (torch.tanh, 4),
    "channels": (lambda x: x * COLUMN + COLUMN[None], 4),
    "places": (lambda x: x + ROW, 4),
    "both": (lambda x: x * (COLUMN * ROW), 4),
    "number": (lambda x: x / 3 + 1, 4),
    "itself": (lambda x: x + x.sigmoid(), 4),
    "gates": (lambda x: x[:, :2].tanh() * x[:, 2:].sigmoid(), 2),
    "cut": (lambda x: x[:, :, 3:] + x[:, :, :-3], 4),
    "every other": (lambda x: x[:, :, ::2], 4),
    "joined": (lambda x: torch.cat([x, x * 2], 1), 8),
    "joined along": (lambda x: torch.cat([x, x.abs()], 2), 4),
    "padded": (lambda x: F.pad(x, (2, 1), value=0.5), 4),
    "padded by itself": (lambda x: F.pad(x, (2, 1), mode="reflect"), 4),
    "chosen": (lambda x: torch.where(x > 0, x, COLUMN), 4),
    "mean along": (lambda x: x - x.mean(2, keepdim=True), 4),
    "largest along": (lambda x: x / (1 + x.amax(2, keepdim=True).abs()), 4),
    "mean of channels": (lambda x: x - x.mean(1, keepdim=True), 4),
    "sum of both": (lambda x: x + x.sum((1, 2), keepdim=True), 4),
    "transposed twice": (lambda x: F.layer_norm(x.transpose(1, 2), (4,)).transpose(1, 2), 4),
    "a sum over the batch": (lambda x: x + x.sum(0, keepdim=True), 4),
}


@pytest.mark.parametrize("name", CASES)
def test_results_stay(name: str) -> None:
    function, channels = CASES[name]
    model = Model(function, channels).eval()
    x = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(1))
    graph = drop_identities(fold_constants(capture(model, x)[0]))
    changed = read_sequences_as_images(graph)
    verify(changed)
    # The order of a sum of at most 40 terms below 8 may differ.
    torch.testing.assert_close(interpret(changed, [x]), interpret(graph, [x]), rtol=0.0, atol=40 * 8 * 2.0**-24)
    program = netopt.lower(model, x)
    with torch.no_grad():
        # Two convolutions, of at most 16 terms each, besides.
        torch.testing.assert_close(program(x), model(x), rtol=0.0, atol=160 * 8 * 2.0**-24)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("transposed twice", "a sum over the batch")])
def test_nothing_is_copied_but_at_the_ends(name: str) -> None:
    function, channels = CASES[name]
    program = netopt.lower(Model(function, channels).eval(), torch.randn(2, 3, 10))
    counts = Counter(step.op.name for step in program.steps)
    # The input and the output; and what is reduced, which a convolution has given zeros around it.
    assert counts["relayout"] <= 3


def test_networks_without_such_images_are_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)).eval()
    graph, _ = capture(model, torch.randn(1, 3, 3, 3))
    assert read_sequences_as_images(graph) is graph


def test_a_reduction_reads_the_image_as_it_lies() -> None:
    graph, _ = capture(Model(lambda x: x - x.mean(2, keepdim=True)).eval(), torch.randn(2, 3, 10))
    changed = read_sequences_as_images(drop_identities(fold_constants(graph)))
    (reduction,) = [node for node in changed.nodes if isinstance(node.op, Reduce)]
    assert (reduction.op.axis, reduction.op.count) == (1, 2)
