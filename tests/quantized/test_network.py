"""A network as its graph: what it computes is what the interpreter computes, and it can be trained."""

from __future__ import annotations

import copy
import io

import pytest
import torch

import netopt
from netopt.errors import InvalidArgument
from netopt.graph import interpret
from netopt.quantization.fixed_point.techniques import FixedPoint
from netopt.quantized.network import QuantizedNetwork
from tests.quantized.networks import INTEGER, NETWORKS, make

TECHNIQUES = [FixedPoint(), FixedPoint(activations=7), FixedPoint(weights=4), FixedPoint(weights=16, activations=16)]
TECHNIQUES += [FixedPoint(scales="real"), FixedPoint(per_channel=False)]


@pytest.mark.parametrize("name", NETWORKS)
def test_before_anything_is_rounded_it_is_the_model(name: str) -> None:
    model, x = make(name)
    network = QuantizedNetwork(model, x[:2])
    for batch in (2, 5):
        assert torch.allclose(network(x[:batch]), model(x[:batch]), atol=1e-5)
    assert network(x.double()).dtype == torch.float64


@pytest.mark.parametrize("technique", TECHNIQUES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_the_interpreter_computes(name: str, technique: FixedPoint) -> None:
    model, x = make(name)
    network = netopt.quantize(model, technique, calibration=x)
    graph, _ = network.as_graph(x[:4])
    (expected,) = interpret(graph, [x[:4]], dtype=torch.float64)
    assert torch.equal(network.exact(x[:4]), expected)
    assert expected.std() > 0.01


@pytest.mark.parametrize("name", INTEGER)
def test_all_values_but_the_outputs_are_codes(name: str) -> None:
    model, x = make(name)
    network = netopt.quantize(model, calibration=x)
    graph, _ = network.as_graph(x[:1])
    floats = [value for value in graph.types if graph.types[value].format.name == "float32"]
    assert set(floats) <= {*graph.outputs, *(f"{value}_read" for value in graph.outputs)}


def test_gradients_reach_all_weights_and_training_lowers_the_loss() -> None:
    model, x = make("residual")
    network = netopt.quantize(model, FixedPoint(weights=3), calibration=x)
    with torch.no_grad():
        wanted = model(x)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = (network(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    graph, _ = network.as_graph(x)
    assert torch.equal(network.exact(x), interpret(graph, [x], dtype=torch.float64)[0])


def test_copies_and_files_keep_it() -> None:
    model, x = make("residual")
    network = netopt.quantize(model, calibration=x)
    expected = network(x)
    twin = copy.deepcopy(network)
    assert torch.equal(twin(x), expected)
    memory = io.BytesIO()
    torch.save(network.state_dict(), memory)
    memory.seek(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert not torch.equal(twin(x), expected)
    twin.load_state_dict(torch.load(memory))
    assert torch.equal(twin(x), expected)


def test_the_model_is_not_changed_and_shares_nothing() -> None:
    model, x = make("mlp")
    before = copy.deepcopy(model.state_dict())
    network = netopt.quantize(model, calibration=x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_value_that_is_an_output_and_read_is_a_float_outside() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.a(x)
            return y, self.b(y)

    torch.manual_seed(0)
    x = torch.randn(16, 6)
    network = netopt.quantize(Two().eval(), calibration=x)
    first, _ = network.exact(x)
    graph, _ = network.as_graph(x)
    assert graph.types[graph.outputs[0]].format.name == "float32"
    steps = first / network.quantizer(f"{graph.outputs[0]}_read").format.steps[0]
    assert not torch.equal(steps, steps.round()), "the output itself is not rounded"


def test_positional_and_keyword_arguments_do_not_mix() -> None:
    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.layer(x) + y

    x = torch.randn(4, 3)
    network = QuantizedNetwork(Sum(), {"x": x, "y": x})
    assert torch.equal(network(x=x, y=x), network(y=x, x=x))
    with pytest.raises(InvalidArgument, match="positional or keyword arguments"):
        network(x, y=x)
