from __future__ import annotations

import torch

from netopt.graph import Graph, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.drop_dead_code import drop_dead_code
from netopt.ops import Arithmetic, Pointwise, TensorType

RELU, TANH, ADD = Pointwise("relu"), Pointwise("tanh"), Arithmetic("add")


def _graph(*outputs: str) -> Graph:
    """a = relu(x); b = tanh(a); c = w + b; d = relu(y), on x and y (3,)."""
    builder = GraphBuilder()
    builder.inputs = ("x", "y")
    builder.types = {"x": TensorType((3,)), "y": TensorType((3,))}
    weight = builder.add_constant("w", torch.ones(3))
    a = builder.add_node(RELU, ("x",), "a", "")
    b = builder.add_node(TANH, (a,), "b", "")
    builder.add_node(ADD, (weight, b), "c", "")
    builder.add_node(RELU, ("y",), "d", "")
    builder.outputs = outputs
    return builder.finish()


def _live(*outputs: str) -> Graph:
    graph = _graph(*outputs)
    live = drop_dead_code(graph)
    verify(live)
    inputs = [torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, -2.0, 3.0])]
    for before, after in zip(interpret(graph, inputs), interpret(live, inputs), strict=True):
        assert torch.equal(before, after)
    assert str(drop_dead_code(live)) == str(live)
    return live


def test_what_no_output_depends_on_goes() -> None:
    live = _live("b")
    assert [node.output for node in live.nodes] == ["a", "b"]
    assert live.constants == {}
    assert set(live.types) == {"x", "y", "a", "b"}


def test_a_chain_of_dead_nodes_goes_at_once() -> None:
    live = _live("d")
    assert [node.output for node in live.nodes] == ["d"]


def test_what_an_output_depends_on_stays_in_order() -> None:
    live = _live("d", "c")
    assert [node.output for node in live.nodes] == ["a", "b", "c", "d"]
    assert set(live.constants) == {"w"}


def test_a_node_in_the_middle_that_is_an_output_stays() -> None:
    assert [node.output for node in _live("a").nodes] == ["a"]


def test_inputs_stay_for_they_are_the_signature() -> None:
    live = _live("x", "w")
    assert live.inputs == ("x", "y")
    assert live.nodes == ()
    assert set(live.constants) == {"w"}
