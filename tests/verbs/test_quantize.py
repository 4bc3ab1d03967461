"""One call from a trained network to codes; what hurts most is left finer; clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt.errors import InvalidArgument, InvalidType, UnsupportedModel
from netopt.quantization.fixed_point.techniques import FixedPoint
from netopt.quantized.network import QuantizedNetwork
from tests.quantized.networks import make


def test_a_tensor_a_list_a_loader_and_a_generator_give_the_same() -> None:
    model, x = make("mlp")
    labels = torch.zeros(len(x), dtype=torch.int64)

    def generator() -> Iterator[torch.Tensor]:
        yield from x.split(8)

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), batch_size=8)
    given: list[Any] = [x, list(x.split(8)), loader, generator(), [{"input": part} for part in x.split(8)]]
    formats = []
    for calibration in given:
        network = netopt.quantize(model, calibration=calibration)
        formats.append([quantizer.format for quantizer in network.quantizers.values()])
    assert all(other == formats[0] for other in formats)


def test_the_error_is_small_and_smaller_with_more_bits() -> None:
    model, x = make("residual")
    with torch.no_grad():
        exact = model(x)

    def error(technique: FixedPoint) -> float:
        network = netopt.quantize(model, technique, calibration=x)
        with torch.no_grad():
            return float((network(x) - exact).norm() / exact.norm())

    coarse, usual, fine = (
        error(technique) for technique in (FixedPoint(weights=2), FixedPoint(), FixedPoint(weights=16, activations=16))
    )
    assert fine < 0.001 < usual < 0.05 < coarse


def test_only_what_is_selected_is_rounded() -> None:
    model, x = make("mlp")
    network = netopt.quantize(model, FixedPoint(select="2"), calibration=x)
    assert network.format_of("2.weight") is not None
    assert network.format_of("0.weight") is None and network.format_of("4.weight") is None
    with pytest.raises(InvalidArgument, match="pattern '9'"):
        netopt.quantize(model, FixedPoint(select="9"), calibration=x)


def test_weights_alone() -> None:
    model, x = make("mlp")
    network = netopt.quantize(model, FixedPoint(activations=None), example=x[:1])
    assert all("weight" in name for name in network.quantizers)
    with torch.no_grad():
        assert (network(x) - model(x)).abs().max() < 0.05


def test_layers_that_hurt_get_more_bits_until_the_network_is_good_enough() -> None:
    model, x = make("residual")
    with torch.no_grad():
        exact = model(x)

    def quality(network: nn.Module) -> float:
        with torch.no_grad():
            return -float((network(x) - exact).norm() / exact.norm())

    plain = netopt.quantize(model, FixedPoint(weights=3), calibration=x)
    network = netopt.quantize(model, FixedPoint(weights=3), calibration=x, evaluate=quality, max_drop=0.02)
    assert quality(plain) < -0.02 <= quality(network)
    assert network.report is not None
    (note,) = network.report.notes
    assert note.startswith("16 bits, to keep what evaluate returns: ")
    float_ = netopt.quantize(model, FixedPoint(weights=3), calibration=x, evaluate=quality, max_drop=1e-6)
    assert quality(float_) > -1e-6 and float_.report is not None
    assert any(note.startswith("left in float32") for note in float_.report.notes)


def test_optimize_applies_it_last() -> None:
    model, x = make("mlp")
    techniques = [FixedPoint(), netopt.factorization.SVD(rank=2)]
    result = netopt.optimize(model, techniques, example=x[:1], calibration=x, keep_if="always")
    assert isinstance(result.model, QuantizedNetwork)
    assert len(result.report.rows) == 3 and len(result.model.quantizers) > 6
    with pytest.raises(InvalidArgument, match="at most one for the network as a whole"):
        netopt.optimize(model, [FixedPoint(), FixedPoint()], calibration=x)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, InvalidArgument, "calibration: expected inputs"),
        ({"calibration": 3}, InvalidType, "a tensor, a list of batches or a data loader"),
        ({"calibration": []}, InvalidArgument, "at least one input"),
        ({"calibration": torch.ones(0, 10)}, InvalidArgument, "at least one input"),
        ({"calibration": torch.ones(4, 11)}, UnsupportedModel, "the example must fit forward"),
        ({"calibration": torch.ones(4, 10), "max_drop": 1.0}, InvalidArgument, "evaluate= and max_drop="),
        ({"calibration": torch.ones(4, 10), "max_drop": -1, "evaluate": abs}, InvalidArgument, "at least 0"),
        ({"calibration": torch.ones(4, 10), "max_drop": 1, "evaluate": lambda _: "good"}, InvalidType, "a number"),
        ({"technique": "int8"}, InvalidType, "FixedPoint"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model, _ = make("mlp")
    with pytest.raises(error, match=message):
        netopt.quantize(model, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": 1}, "weights of FixedPoint: expected bits: 2 to 8, or 16, found 1"),
        ({"activations": 4}, "activations of FixedPoint"),
        ({"scales": "float"}, "scales of FixedPoint"),
        ({"method": "mse"}, "method of FixedPoint"),
        ({"learned": 1}, "learned of FixedPoint"),
    ],
)
def test_options_are_checked_when_they_are_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises((InvalidArgument, InvalidType), match=message):
        FixedPoint(**options)
