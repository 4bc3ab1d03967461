from __future__ import annotations

import dataclasses

import pytest
import torch

from netopt.errors import InvalidArgument
from netopt.graph import Graph, Node, verify
from netopt.graph.graph import GraphBuilder, replace_values
from netopt.numerics import BFLOAT16, FLOAT32, INT32, SIGN_BITS, FixedPoint, NumberFormat
from netopt.ops import Arithmetic, Dense, Pointwise, TensorType

RELU = Pointwise("relu")
ADD = Arithmetic("add")


def _input(builder: GraphBuilder, name: str, *shape: int) -> str:
    builder.inputs += (name,)
    builder.types[name] = TensorType(shape)
    return name


def _residual() -> Graph:
    """out = relu(x W^T) + relu(x W^T), with x (2, 3) and W (4, 3)."""
    builder = GraphBuilder()
    x = _input(builder, "x", 2, 3)
    weight = builder.add_constant("fc.weight", torch.ones(4, 3))
    dense = builder.add_node(Dense(), (x, weight), "dense", "fc")
    relu = builder.add_node(RELU, (dense,), "relu", "act")
    builder.outputs = (builder.add_node(ADD, (relu, relu), "sum", ""),)
    return builder.finish()


def test_builder_makes_a_graph() -> None:
    graph = _residual()
    verify(graph)
    assert graph.inputs == ("x",)
    assert graph.outputs == ("sum",)
    assert [node.output for node in graph.nodes] == ["dense", "relu", "sum"]
    assert graph.types["dense"] == TensorType((2, 4))
    assert list(graph.constants) == ["fc.weight"]


def test_node_types() -> None:
    graph = _residual()
    assert graph.node_types(graph.nodes[0]) == (TensorType((2, 3)), TensorType((4, 3)))


def test_producers() -> None:
    graph = _residual()
    assert graph.producers() == {"dense": graph.nodes[0], "relu": graph.nodes[1], "sum": graph.nodes[2]}


def test_users_stand_in_order_and_once_for_each_read() -> None:
    graph = _residual()
    dense, relu, total = graph.nodes
    assert graph.users() == {"x": [dense], "fc.weight": [dense], "dense": [relu], "relu": [total, total], "sum": []}


def test_multiply_adds_are_those_of_the_matrix_products() -> None:
    assert _residual().multiply_adds() == 2 * 3 * 4


def test_text() -> None:
    assert str(_residual()).splitlines() == [
        "input  x: float32[2, 3]",
        "const  fc.weight: float32[4, 3]",
        "dense: float32[2, 4] = Dense(has_bias=False, has_residual=False, activation=None)(x, fc.weight)  # fc",
        "relu: float32[2, 4] = Pointwise(function='relu', parameters=())(dense)  # act",
        "sum: float32[2, 4] = Arithmetic(function='add')(relu, relu)",
        "return sum",
    ]


def test_a_graph_cannot_be_changed() -> None:
    graph = _residual()
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.outputs = ("x",)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.nodes[0].output = "y"  # type: ignore[misc]


def test_fresh_names() -> None:
    builder = GraphBuilder()
    names = [builder.add_constant("w", torch.ones(1)) for _ in range(3)]
    assert names == ["w", "w_2", "w_3"]
    assert builder.fresh_name("w_2") == "w_2_2"
    assert builder.fresh_name("other") == "other"
    assert builder.fresh_name("other") == "other", "a name is taken only when it is used"


def test_constants_are_detached_and_contiguous() -> None:
    builder = GraphBuilder()
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    name = builder.add_constant("w", parameter.T)
    value = builder.constants[name]
    assert not value.requires_grad
    assert value.is_contiguous()
    assert torch.equal(value, torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))
    assert builder.types[name] == TensorType((3, 2))


def test_a_node_that_does_not_fit_is_not_added() -> None:
    builder = GraphBuilder()
    x = _input(builder, "x", 2, 3)
    y = _input(builder, "y", 4, 5)
    with pytest.raises(InvalidArgument, match=r"shapes of add: expected shapes that broadcast"):
        builder.add_node(ADD, (x, y), "sum", "")
    assert builder.nodes == []


def test_finish_drops_what_nothing_uses() -> None:
    builder = GraphBuilder()
    x = _input(builder, "x", 2)
    _input(builder, "unused_input", 2)
    builder.add_constant("unused", torch.ones(2))
    builder.add_constant("returned", torch.ones(2))
    builder.add_node(RELU, (x,), "unread", "")
    builder.outputs = ("returned",)
    graph = builder.finish()
    # Inputs are the signature, and nodes are for drop_dead_code.
    assert set(graph.types) == {"x", "unused_input", "returned", "unread"}
    assert set(graph.constants) == {"returned"}
    verify(graph)


def test_a_builder_of_a_graph_leaves_that_graph_as_it_is() -> None:
    graph = _residual()
    before = str(graph)
    builder = GraphBuilder(graph)
    assert builder.nodes == []
    builder.add_constant("more", torch.ones(1))
    builder.outputs = (builder.add_node(RELU, ("x",), "y", ""),)
    changed = builder.finish()
    assert str(graph) == before
    assert set(graph.types) == {"x", "fc.weight", "dense", "relu", "sum"}
    assert set(graph.constants) == {"fc.weight"}
    assert set(changed.types) == {"x", "y"}


def test_replace_values_follows_chains() -> None:
    builder = GraphBuilder()
    x = _input(builder, "x", 2)
    a = builder.add_node(RELU, (x,), "a", "")
    b = builder.add_node(RELU, (a,), "b", "")
    c = builder.add_node(ADD, (b, a), "c", "layer")
    builder.outputs = (b, c, x)
    graph = builder.finish()
    replaced = replace_values(graph, {"b": "a", "a": "x"}, frozenset({"a", "b"}))
    assert replaced.nodes == (Node(ADD, ("x", "x"), "c", "layer"),)
    assert replaced.outputs == ("x", "c", "x")
    assert set(replaced.types) == {"x", "c"}
    verify(replaced)


def test_replace_values_keeps_nodes_that_are_not_dropped() -> None:
    graph = _residual()
    replaced = replace_values(graph, {"relu": "dense"})
    assert [node.output for node in replaced.nodes] == ["dense", "relu", "sum"]
    assert replaced.nodes[2].inputs == ("dense", "dense")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.bfloat16, torch.float64])
def test_the_format_of_a_constant_is_given_and_not_guessed(dtype: torch.dtype) -> None:
    builder = GraphBuilder()
    builder.outputs = (builder.add_constant("c", torch.ones(3, dtype=dtype)),)
    assert builder.types["c"] == TensorType((3,), FLOAT32)
    with pytest.raises(
        InvalidArgument, match=f"constant 'c': expected a contiguous CPU tensor of type float32.*{dtype}"
    ):
        verify(builder.finish())


@pytest.mark.parametrize("format_", [SIGN_BITS, INT32, FixedPoint(8, 2), BFLOAT16], ids=str)
def test_a_constant_stands_for_numbers(format_: NumberFormat) -> None:
    builder = GraphBuilder()
    name = builder.add_constant("c", format_.encode(torch.tensor([1.0, -1.0])), format_)
    builder.outputs = (name,)
    numbers = builder.finish().numbers(name, torch.float64)
    assert torch.equal(numbers, torch.tensor([1.0, -1.0], dtype=torch.float64))
