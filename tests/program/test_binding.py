from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import netopt
from netopt.program.binding import bind_kernels, bind_torch, pack_steps, runs_of
from netopt.program.file import read_network
from netopt.program.lower import prepare
from netopt.program.memory_image import MemoryImage
from netopt.program.options import Lowering


class Summed(nn.Module):
    """Two parts in PyTorch, with layers around them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth = self.layers
        y = second(first(x)).logcumsumexp(1)
        z: torch.Tensor = fourth(third(y).logcumsumexp(1))
        return z


def test_kernels_between_parts_in_pytorch_are_one_run() -> None:
    options = Lowering(fallback=True)
    network = prepare(Summed(), torch.randn(2, 6), options)
    graph = network.graph
    memory = MemoryImage(graph, network.plan, options.cpu)
    steps, in_torch = pack_steps(graph, memory, options), bind_torch(graph, memory)
    assert len(steps) == 4
    assert len(in_torch) == 2
    runs = runs_of(graph, bind_kernels(graph, steps, memory, options.cpu), in_torch)
    assert [run in in_torch.values() for run in runs] == [False, True, False, True, False]
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    memory.place(graph.inputs[0]).copy_(x)
    for run in runs:
        run()
    program = netopt.Program(network, Lowering())
    assert torch.equal(memory.place(graph.outputs[0]), program(x))


def test_saved_weights_are_those_of_the_graph(tmp_path: Path) -> None:
    """Unpacking is the exact inverse of packing, for every layout."""
    model, x = nn.Sequential(nn.Linear(37, 50), nn.LayerNorm(50), nn.Linear(50, 3)), torch.randn(2, 37)
    netopt.lower(model, x).save(tmp_path / "net.nopt")
    saved = read_network(tmp_path / "net.nopt").graph.constants
    for name, parameter in model.named_parameters():
        assert torch.equal(saved[name], parameter.detach())


def test_layers_that_share_a_weight_but_pack_it_in_another_order(tmp_path: Path) -> None:
    """The first reads the middle of the kernel alone; the strides of the others give them phases of their own."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0)))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            pixel = F.conv_transpose2d(x[:, :, :1, :1], self.weight, padding=1)
            return pixel, *(F.conv_transpose2d(x, self.weight, stride=stride, padding=1) for stride in (1, 2, 3))

    model, x = Shared(), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    program = netopt.lower(model, x)
    program.save(tmp_path / "net.nopt")
    assert torch.equal(read_network(tmp_path / "net.nopt").graph.constants["weight"], model.weight.detach())
    for executor in (program, netopt.load(tmp_path / "net.nopt")):
        for result, expected in zip(executor(x), model(x), strict=True):
            # Sums of 36 products of numbers near 1.
            torch.testing.assert_close(result, expected.detach(), rtol=1e-5, atol=1e-5)
