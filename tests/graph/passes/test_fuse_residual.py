from __future__ import annotations

import pytest

from netopt.graph import Graph
from netopt.graph.passes.fuse_residual import fuse_residual
from netopt.ops import Arithmetic, Dense, Pointwise, Reshape, Slice
from tests.graph.passes import dense_graphs
from tests.graph.passes.dense_graphs import Builder, X, labels

RELU, ADD = Pointwise("relu"), Arithmetic("add")


def _fused(graph: Graph) -> Graph:
    """The same bits: x W^T + b + residual adds in that order."""
    return dense_graphs.fused(graph, fuse_residual)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dense_first", [True, False])
def test_a_sum_joins_the_dense_layer_that_feeds_it(bias: bool, dense_first: bool) -> None:
    b = Builder()
    d = b.dense("x", "d", bias=bias)
    fused = _fused(b.give(b.add(d, "x", "y") if dense_first else b.add("x", d, "y")))
    (node,) = fused.nodes
    assert node.op == Dense(has_bias=bias, has_residual=True)
    assert node.inputs == (("x", "w", "b", "x") if bias else ("x", "w", "x"))
    assert (node.output, node.layer) == ("y", "layer.d")
    assert "d" not in fused.types


def test_the_dense_layer_runs_where_the_sum_ran() -> None:
    """The other branch is computed after the dense layer here."""
    b = Builder()
    d = b.dense("x", "d")
    relu = b.add_node(RELU, ("x",), "relu", "")
    fused = _fused(b.give(b.add(d, relu, "y")))
    assert [node.output for node in fused.nodes] == ["relu", "y"]


def test_of_two_dense_layers_one_takes_the_sum() -> None:
    b = Builder()
    fused = _fused(b.give(b.add(b.dense("x", "d1"), b.dense("x", "d2"), "y")))
    assert labels(fused) == ["dense", "dense + add"]


def test_chains_of_residual_blocks() -> None:
    b = Builder()
    first = b.add("x", b.dense("x", "d1"), "first")
    second = b.add(b.dense(first, "d2"), first, "second")
    fused = _fused(b.give(b.add(second, b.dense(second, "d3"), "y")))
    assert labels(fused) == ["dense + add"] * 3


def test_a_dense_layer_takes_one_sum_only() -> None:
    b = Builder()
    first = b.add(b.dense("x", "d"), "x", "first")
    fused = _fused(b.give(b.add(first, "x", "y")))
    assert labels(fused) == ["dense + add", "add"]


def test_not_where_the_dense_layer_is_read_twice() -> None:
    b = Builder()
    d = b.dense("x", "d")
    relu = b.add_node(RELU, (d,), "relu", "")
    fused = _fused(b.give(b.add(d, "x", "y"), relu))
    assert labels(fused) == ["dense", "relu", "add"]


def test_not_where_the_sum_reads_the_dense_layer_twice() -> None:
    b = Builder()
    d = b.dense("x", "d")
    fused = _fused(b.give(b.add(d, d, "y")))
    assert labels(fused) == ["dense", "add"]


def test_not_where_the_dense_layer_is_an_output() -> None:
    b = Builder()
    d = b.dense("x", "d")
    fused = _fused(b.give(b.add(d, "x", "y"), d))
    assert labels(fused) == ["dense", "add"]


def test_not_where_the_other_branch_is_constant() -> None:
    b = Builder()
    constant = b.add_constant("c", X.flip(0).contiguous())
    fused = _fused(b.give(b.add(b.dense("x", "d"), constant, "y")))
    assert labels(fused) == ["dense", "add"]


@pytest.mark.parametrize("shape", [(1, 4), (3, 1)])
def test_not_where_the_other_branch_is_broadcast(shape: tuple[int, int]) -> None:
    b = Builder()
    axis = shape.index(1)
    part = b.add_node(Slice(axis, 0, 1), ("x",), "part", "")
    fused = _fused(b.give(b.add(b.dense("x", "d"), part, "y")))
    assert labels(fused) == ["slice", "dense", "add"]


def test_not_where_the_dense_layer_is_broadcast() -> None:
    b = Builder()
    row = b.add_node(Reshape((4,)), (b.add_node(Slice(0, 0, 1), ("x",), "part", ""),), "row", "")
    fused = _fused(b.give(b.add(b.dense(row, "d"), "x", "y")))
    assert labels(fused) == ["slice", "reshape", "dense", "add"]


@pytest.mark.parametrize("function", ["sub", "mul", "div"])
def test_not_into_other_arithmetic(function: str) -> None:
    b = Builder()
    fused = _fused(b.give(b.add_node(Arithmetic(function), (b.dense("x", "d"), "x"), "y", "")))
    assert labels(fused) == ["dense", function]


def test_not_after_an_activation() -> None:
    b = Builder()
    d = b.add_node(Dense(activation=RELU), ("x", b.weight), "d", "")
    fused = _fused(b.give(b.add(d, "x", "y")))
    assert labels(fused) == ["dense + relu", "add"]
