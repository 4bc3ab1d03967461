"""Layers of one bit, and the three ways to run a network of them, for tests of passes and of whole networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from netopt.graph import Graph, interpret
from netopt.numerics import SIGNS
from netopt.program.file import Network
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from netopt.program.program import Program
from netopt.quantization import LowBitConv1d, LowBitConv2d, LowBitLinear, SignInputs, SignWeights
from netopt.quantization.signs.forms import WeightForm


class Model(nn.Module):
    """A function of its layers and inputs."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


BARE = SignWeights(scaled=False)


def conv(*sizes: int, form: WeightForm = BARE, pad_one: bool = False, signs: bool = True, **options: Any) -> nn.Module:
    """A `LowBitConv2d`, without a bias unless told otherwise; with `signs` of the signs of its inputs."""
    layer = nn.Conv2d(*sizes, **{"bias": False, **options})  # type: ignore[arg-type]
    return LowBitConv2d.of(layer, form, SignInputs() if signs else None, pad_one=pad_one)  # type: ignore[no-any-return]


def conv1d(*sizes: int, **options: Any) -> nn.Module:
    """The same of sequences."""
    return LowBitConv1d.of(nn.Conv1d(*sizes, **{"bias": False, **options}), BARE, SignInputs())  # type: ignore[arg-type, no-any-return]


def dense(inputs: int, outputs: int, *, form: WeightForm = BARE, signs: bool = True, bias: bool = False) -> nn.Module:
    """The same of vectors."""
    return LowBitLinear.of(nn.Linear(inputs, outputs, bias), form, SignInputs() if signs else None)


def trained(model: nn.Module) -> nn.Module:
    """The model in eval mode, with batch norms as training leaves them: some scales negative, or 0."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2.0, generator=generator)  # type: ignore[union-attr]
            module.weight.data.normal_(generator=generator)
            module.bias.data.normal_(generator=generator)
            module.weight.data[::5] = 0
    return model.eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def tensors(value: Any) -> Sequence[torch.Tensor]:
    return value if isinstance(value, tuple) else (value,)


def assert_computes(model: nn.Module, x: torch.Tensor, *, exact: bool, compiled: bool = True) -> Graph:
    """The graph, which is right in the interpreter and as a program: to the bit, or to 1e-6 of the largest number."""
    network = prepare(model, x, Lowering())
    with torch.no_grad():
        expected = tensors(model(x))
    for results in (interpret(network.graph, [x]), *([tensors(Program(network, Lowering())(x))] if compiled else [])):
        assert len(results) == len(expected)
        for result, right in zip(results, expected, strict=True):
            if exact:
                assert torch.equal(result, right)
            else:
                assert_close(result, right)
    return network.graph


def assert_close(result: torch.Tensor, right: torch.Tensor, most: float = 1e-6) -> None:
    """To 1e-6 of the largest number: 16 roundings, of sums, scales and shifts in another order."""
    torch.testing.assert_close(result, right, rtol=0, atol=most * float(right.abs().max()))


def labels(graph: Graph | Network) -> list[str]:
    """The labels of the ops, without copies between layouts; those that write packed signs have "bits" before them."""
    graph = graph.graph if isinstance(graph, Network) else graph
    return [
        f"bits {node.op.label}" if graph.types[node.output].format == SIGNS else node.op.label
        for node in graph.nodes
        if node.op.name not in ("relayout", "reshape")
    ]
