from __future__ import annotations

import pytest

from netopt.graph import Graph
from netopt.graph.passes.fuse_activation import fuse_activation
from netopt.ops import Arithmetic, Dense, Pointwise, Reshape
from tests.graph.passes import dense_graphs
from tests.graph.passes.dense_graphs import Builder, labels

RELU, TANH, ADD = Pointwise("relu"), Pointwise("tanh"), Arithmetic("add")


def _fused(graph: Graph) -> Graph:
    """The same operations run, and give the same bits."""
    return dense_graphs.fused(graph, fuse_activation)


@pytest.mark.parametrize("activation", [RELU, TANH, Pointwise("hardtanh", (-0.5, 0.5)), Pointwise("gelu")], ids=str)
def test_an_activation_joins_its_dense_layer(activation: Pointwise) -> None:
    b = Builder()
    d = b.dense("x", "d")
    fused = _fused(b.give(b.add_node(activation, (d,), "y", "act")))
    (node,) = fused.nodes
    assert node.op == Dense(has_bias=True, activation=activation)
    assert node.inputs == ("x", "w", "b")
    assert (node.output, node.layer) == ("y", "layer.d")
    assert "d" not in fused.types


def test_a_residual_is_added_before_the_activation() -> None:
    b = Builder()
    residual = b.add_node(Dense(has_residual=True), ("x", b.weight, "x"), "d", "")
    fused = _fused(b.give(b.add_node(RELU, (residual,), "y", "")))
    (node,) = fused.nodes
    assert node.op == Dense(has_residual=True, activation=RELU)
    assert node.inputs == ("x", "w", "x")


def test_layers_are_fused_each_with_its_own() -> None:
    b = Builder()
    d1 = b.dense("x", "d1")
    d2 = b.dense("x", "d2")
    tanh = b.add_node(TANH, (d2,), "tanh", "")
    relu = b.add_node(RELU, (d1,), "relu", "")
    d3 = b.dense(b.add_node(ADD, (tanh, relu), "sum", ""), "d3")
    fused = _fused(b.give(b.add_node(RELU, (d3,), "y", "")))
    assert labels(fused) == ["dense + tanh", "dense + relu", "add", "dense + relu"]


def test_of_two_activations_the_first_is_fused() -> None:
    b = Builder()
    relu = b.add_node(RELU, (b.dense("x", "d"),), "relu", "")
    fused = _fused(b.give(b.add_node(TANH, (relu,), "y", "")))
    assert labels(fused) == ["dense + relu", "tanh"]


def test_not_where_the_value_between_is_read_twice() -> None:
    b = Builder()
    d = b.dense("x", "d")
    relu = b.add_node(RELU, (d,), "relu", "")
    fused = _fused(b.give(b.add_node(ADD, (relu, d), "y", "")))
    assert labels(fused) == ["dense", "relu", "add"]


def test_not_where_two_activations_read_the_value() -> None:
    b = Builder()
    d = b.dense("x", "d")
    fused = _fused(b.give(b.add_node(RELU, (d,), "y", ""), b.add_node(TANH, (d,), "z", "")))
    assert labels(fused) == ["dense", "relu", "tanh"]


def test_not_where_the_value_between_is_an_output() -> None:
    b = Builder()
    d = b.dense("x", "d")
    fused = _fused(b.give(b.add_node(RELU, (d,), "y", ""), d))
    assert labels(fused) == ["dense", "relu"]


def test_not_across_another_op() -> None:
    b = Builder()
    flat = b.add_node(Reshape((12,)), (b.dense("x", "d"),), "flat", "")
    fused = _fused(b.give(b.add_node(RELU, (flat,), "y", "")))
    assert labels(fused) == ["dense", "reshape", "relu"]


def test_not_into_a_dense_layer_that_has_an_activation() -> None:
    b = Builder()
    d = b.add_node(Dense(activation=TANH), ("x", b.weight), "d", "")
    fused = _fused(b.give(b.add_node(RELU, (d,), "y", "")))
    assert labels(fused) == ["dense + tanh", "relu"]


def test_an_activation_without_a_dense_layer_stays() -> None:
    b = Builder()
    fused = _fused(b.give(b.add_node(RELU, ("x",), "y", ""), b.dense("x", "d")))
    assert labels(fused) == ["relu", "dense"]
