"""Types given to variables: what is refused and why, who shares a position, and what a network then has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import netopt
from netopt.errors import InvalidArgument, InvalidType
from netopt.graph import interpret
from netopt.numerics import FLOAT32, Affine, FixedPoint
from netopt.program.lower import prepare
from netopt.program.options import Lowering
from netopt.quantization import BinaryConnect
from netopt.quantization.fixed_point.techniques import WeightOnly
from netopt.quantized.network import QuantizedNetwork
from netopt.quantized.typed import check_types, to_observe
from netopt.quantized.types import TypeRefused, TypeWish, parse_type
from netopt.quantized.variables import variables_of

X = torch.linspace(-1.5, 2.0, 128).reshape(2, 1, 8, 8)


class _Network(nn.Module):
    """A convolution, pooling, two branches that are concatenated, softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.left = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(128, 5)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.pool(self.conv(x).relu())
        both = torch.cat([self.left(pooled), pooled], 1)
        return self.fc(both.flatten(1)).softmax(1).sigmoid()


def _types(**texts: str) -> dict[str, TypeWish]:
    return {name.replace("__", "."): parse_type(text) for name, text in texts.items()}


def _quantized(**texts: str) -> QuantizedNetwork:
    return netopt.quantize(_Network(), calibration=X, example=X[:1], types=_types(**texts))


ALL = {
    "x": "FIXED8",
    "conv__weight": "FIXED8",
    "relu": "UFIXED8",
    "max_pool2d": "UFIXED8",
    "left__weight": "FIXED4",
    "conv2d_1": "FIXED8",
}


def test_formats_are_those_asked_for() -> None:
    network = _quantized(**ALL | {"x": "FIXED16_12", "conv2d_1": "FIXED8_-1"})
    assert network.format_of("x") == FixedPoint(16, 12)
    assert network.format_of("conv2d_1") == FixedPoint(8, -1)
    relu = network.format_of("relu")
    assert isinstance(relu, FixedPoint) and (relu.bits, relu.signed) == (8, False)
    assert network.format_of("max_pool2d") == relu
    weight = network.format_of("conv.weight")
    assert isinstance(weight, FixedPoint) and len(weight.fractions) == 4
    assert isinstance(network.format_of("left.weight"), FixedPoint)
    for name in ("cat", "fc.weight", "conv.bias", "softmax"):
        assert network.format_of(name) is None, name


def test_real_scales() -> None:
    network = _quantized(x="AFFINE8", conv__weight="AFFINE8")
    assert isinstance(network.format_of("x"), Affine)
    assert isinstance(network.format_of("conv.weight"), Affine)


def test_a_position_of_a_weight_is_that_of_all_outputs() -> None:
    assert _quantized(conv__weight="FIXED8_3").format_of("conv.weight") == FixedPoint(8, 3)


def test_the_lowered_graph_has_these_types_and_computes_what_the_network_does() -> None:
    network = _quantized(**ALL)
    graph = prepare(network, X[:1], Lowering()).graph
    assert graph.types["x"].format == network.format_of("x")
    assert graph.types["conv2d_1"].format == network.format_of("conv2d_1")
    assert graph.types["left.weight"].format == network.format_of("left.weight")
    assert all(graph.types[name].format == FLOAT32 for name in graph.constants if name.startswith("fc."))
    (expected,) = interpret(graph, [X[:1]], dtype=torch.float64)
    assert torch.equal(network.exact(X[:1]), expected)


def test_values_of_one_type_that_codes_are_moved_between_share_an_observer() -> None:
    network = QuantizedNetwork(_Network(), X[:1])
    seen = to_observe(network, _types(**ALL, cat="FIXED8"))
    assert set(seen) == {"x", "relu", "max_pool2d", "conv2d_1", "cat"}
    assert seen["relu"] is seen["max_pool2d"]
    assert seen["conv2d_1"] is seen["cat"]
    assert seen["max_pool2d"] is not seen["cat"]
    assert seen["x"] is not seen["relu"]


REFUSED = [
    ({"con__weight": "FIXED8"}, "types: unknown variable 'con.weight'; did you mean conv.weight"),
    ({"conv__bias": "FIXED16"}, "type of 'conv.bias': expected FLOAT32 for what is no weight of a layer, found"),
    ({"conv__weight": "UFIXED8_3"}, "expected signed codes for a weight, found UFIXED8_3; write FIXED8_3"),
    ({"relu": "FIXED4"}, "expected codes of 8 or 16 bits for what is computed, found FIXED4"),
    ({"relu": "FIXED7_3"}, "expected codes of 8 or 16 bits for what is computed, found FIXED7_3"),
    ({"conv__weight": "SIGN"}, "expected codes or FLOAT32, for it is not +1 and -1 alone, found SIGN; binarize"),
    ({"relu": "SIGN"}, "type of 'relu': expected codes or FLOAT32, for it is not +1 and -1 alone, found SIGN"),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "message"), REFUSED)
def test_what_a_variable_cannot_have(texts: dict[str, str], message: str) -> None:
    network = QuantizedNetwork(_Network(), X[:1])
    with pytest.raises(InvalidArgument) as caught:
        check_types(network, _types(**texts))
    assert message in str(caught.value)
    if isinstance(caught.value, TypeRefused):
        assert caught.value.variable in network.example_graph.types


def test_signs_are_signs() -> None:
    layers = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    network = QuantizedNetwork(netopt.optimize(nn.Sequential(*layers), BinaryConnect()).model, torch.zeros(1, 8))
    (weight,) = [v.name for v in variables_of(network.example_graph) if v.type == "SIGN"]
    check_types(network, {weight: parse_type("SIGN")})
    with pytest.raises(TypeRefused, match=r"expected SIGN, for it is \+1 and -1, found FIXED8"):
        check_types(network, {weight: parse_type("FIXED8")})


def test_without_data_values_need_n_and_parameters_do_not() -> None:
    def quantize(**texts: str) -> QuantizedNetwork:
        return netopt.quantize(_Network(), example=X[:1], types=_types(**texts))

    network = quantize(x="FIXED8_5", conv__weight="FIXED8")
    assert network.format_of("x") == FixedPoint(8, 5)
    with pytest.raises(
        TypeRefused, match="type of 'x': expected calibration inputs, from which n is found, found none"
    ):
        quantize(x="FIXED8")


def test_types_stand_in_place_of_a_search_and_of_other_techniques() -> None:
    with pytest.raises(InvalidArgument, match="types: expected types, or evaluate= and max_drop=, found both"):
        netopt.quantize(_Network(), calibration=X, types={}, evaluate=lambda _: 1.0, max_drop=0.1)
    with pytest.raises(InvalidType, match=r"technique: expected FixedPoint\(...\) with types"):
        netopt.quantize(_Network(), WeightOnly(), calibration=X, types={})
    with pytest.raises(InvalidType, match="model: expected a torch.nn.Module, found int"):
        netopt.quantize(3, calibration=X, types={})  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="calibration: expected at least one input, or an example, found none"):
        netopt.quantize(_Network(), types={})
