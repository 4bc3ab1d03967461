"""What settings list of a graph: which values, in which order, of which kind and type."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netopt.errors import InvalidArgument
from netopt.graph import Graph
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes import run_passes
from netopt.graph.passes.structure import STRUCTURE
from netopt.numerics import INT64, FixedPoint
from netopt.ops import Convert, Dense, TensorType
from netopt.quantized.types import Variable, parse_type
from netopt.quantized.variables import all_in, functions_of, variables_of


def _network() -> Graph:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2, bias=False))
    graph, _ = capture(model, torch.zeros(1, 4))
    return run_passes(graph, STRUCTURE)


def test_variables_in_order_with_kind_shape_and_type() -> None:
    assert variables_of(_network()) == (
        Variable("input", "input", (1, 4), "FLOAT32"),
        Variable("0.weight", "parameter", (3, 4), "FLOAT32"),
        Variable("0.bias", "parameter", (3,), "FLOAT32"),
        Variable("relu", "buffer", (1, 3), "FLOAT32"),
        Variable("2.weight", "parameter", (2, 3), "FLOAT32"),
        Variable("linear_1", "output", (1, 2), "FLOAT32"),
    )


def test_functions_with_what_is_fused() -> None:
    assert functions_of(_network()) == (("relu", "dense + relu"), ("linear_1", "dense"))


def test_formats_may_be_told() -> None:
    formats = {"relu": FixedPoint(8, 5, signed=False), "0.weight": FixedPoint(8, (3, 4, 5))}
    types = {variable.name: variable.type for variable in variables_of(_network(), formats.get)}
    assert types["relu"] == "UFIXED8_5"
    assert types["0.weight"] == "FIXED8"
    assert types["input"] == "FLOAT32"


def test_copies_sums_and_whole_numbers_are_not_listed() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x", "tokens")
    builder.types = {"x": TensorType((1, 4)), "tokens": TensorType((1, 4), INT64)}
    codes = builder.add_node(Convert(), ("x",), "x_codes", "")
    weight = builder.add_constant("w", torch.zeros(2, 4))
    bias = builder.add_constant("b", torch.zeros(2, dtype=torch.int32), FixedPoint(32, 9))
    y = builder.add_node(Dense(has_bias=True), (codes, weight, bias), "y", "fc")
    builder.outputs = (y, "x")
    graph = builder.finish()
    assert [(v.name, v.kind) for v in variables_of(graph)] == [("x", "input"), ("w", "parameter"), ("y", "output")]
    assert [name for name, _ in functions_of(graph)] == ["y"]


def test_an_output_that_is_a_copy_is_listed() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((1, 4))}
    builder.outputs = (builder.add_node(Convert(), ("x",), "y", ""),)
    assert [(v.name, v.kind) for v in variables_of(builder.finish())] == [("x", "input"), ("y", "output")]


def test_one_type_for_all_that_layers_multiply() -> None:
    graph = _network()
    types = {v.name: v.type for v in all_in(graph, variables_of(graph), parse_type("FIXED16"))}
    assert types == {
        "input": "FIXED16",
        "0.weight": "FIXED16",
        "0.bias": "FLOAT32",
        "relu": "FIXED16",
        "2.weight": "FIXED16",
        "linear_1": "FLOAT32",
    }


@pytest.mark.parametrize("text", ["FLOAT32", "SIGN", "FIXED4", "UFIXED7"])
def test_types_that_not_all_can_have(text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"expected codes of 8 or 16 bits, such as FIXED8, found {text}"):
        all_in(_network(), (), parse_type(text))
