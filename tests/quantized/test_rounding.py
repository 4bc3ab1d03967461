"""Weights in groups: what the network computes with them, trained or not, and what is lowered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netopt
from netopt.graph import interpret
from netopt.numerics import Grouped
from netopt.quantization.fixed_point.techniques import WeightOnly
from netopt.quantized.rounding import FormatRounding


def test_it_is_the_format_with_a_gradient() -> None:
    torch.manual_seed(0)
    format_, x = Grouped(4, 8), torch.randn(3, 20, requires_grad=True)
    rounding = FormatRounding(format_)
    y = rounding(x)
    assert torch.allclose(y, format_.decode(format_.encode(x.detach())), atol=1e-7)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.ones(3, 20))
    rounding.enabled = False
    assert rounding(x) is x
    assert "Grouped" in repr(rounding)


@pytest.mark.parametrize("technique", [WeightOnly(), WeightOnly(bits=4, group=16), WeightOnly(bits=4, activations=8)])
def test_dense_layers_alone_and_as_they_run(technique: WeightOnly) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 5))
    model, x = model.eval(), torch.randn(16, 1, 6, 6)
    data = None if technique.activations is None else x
    network = netopt.quantize(model, technique, example=x[:2], calibration=data)
    graph, _ = network.as_graph(x[:2])
    grouped = [name for name, type_ in graph.types.items() if isinstance(type_.format, Grouped)]
    assert grouped == ["3.weight", "5.weight"] or sorted(grouped) == ["3.weight_by_pixel", "5.weight"]
    program = netopt.lower(network, x[:2])
    exact = interpret(graph, [x[:2]], dtype=torch.float64)[0]
    assert torch.allclose(program(x[:2]).double(), exact, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert (network(x[:2]) - model(x[:2])).norm() < 0.2 * model(x[:2]).norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bits": 5}, "bits of WeightOnly"), ({"group": 12}, "group of a grouped format"), ({"activations": 7}, "8, 16")],
)
def test_options_are_checked(options: dict[str, int], message: str) -> None:
    with pytest.raises(netopt.InvalidArgument, match=message):
        WeightOnly(**options)
