from __future__ import annotations

import torch

from netopt.graph import Graph, Node, verify
from netopt.graph.edit import GraphEditor
from netopt.graph.graph import GraphBuilder
from netopt.ops import Arithmetic, Dense, Pointwise, TensorType

RELU, ADD = Pointwise("relu"), Arithmetic("add")


def _graph() -> Graph:
    """x -> d (a dense layer) -> r -> s = r + r."""
    b = GraphBuilder()
    b.inputs, b.types = ("x",), {"x": TensorType((2, 3))}
    d = b.add_node(Dense(), ("x", b.add_constant("w", torch.ones(3, 3))), "d", "fc")
    r = b.add_node(RELU, (d,), "r", "act")
    b.outputs = (b.add_node(ADD, (r, r), "s", "sum"),)
    return b.finish()


def test_unchanged_it_is_the_graph() -> None:
    graph = _graph()
    assert str(GraphEditor(graph).finish()) == str(graph)


def test_readers_and_writers_follow_each_change() -> None:
    editor = GraphEditor(_graph())
    d, r, s = editor.walk()
    assert (editor.producer("x"), editor.producer("d"), editor.only_user("d")) == (None, d, r)
    assert (editor.users("r"), editor.only_user("r"), editor.only_user("s")) == ([s, s], None, None)
    part = editor.insert_before(s, Pointwise("tanh"), ("d",), "t")
    assert [node.output for node in editor.walk()] == ["d", "r", "t", "s"]
    assert [node.output for node in editor.at(2)] == ["t", "s"]
    assert (editor.place(s), editor.only_user("d")) == (2, None)
    assert [node.layer for node in editor.users("d")] == ["act", "sum"]
    editor.rename("r", part)
    editor.remove(r)
    result = editor.finish()
    verify(result)
    assert {node.output: node.inputs for node in result.nodes} == {"d": ("x", "w"), "t": ("d",), "s": ("t", "t")}
    assert "r" not in result.types


def test_an_output_that_is_renamed_is_that_of_the_caller() -> None:
    editor = GraphEditor(_graph())
    *_, s = editor.walk()
    editor.rename("s", "r")
    editor.remove(s)
    assert editor.outputs == ("r",)
    assert editor.only_user("r") is None
    assert editor.finish().outputs == ("r",)


def test_a_constant_that_nothing_reads_any_more_leaves_its_name() -> None:
    editor = GraphEditor(_graph())
    d, *_ = editor.walk()
    name = editor.add_constant("w", torch.zeros(3, 3))
    assert name == "w_2"
    editor.replace(Node(Dense(), ("x", name), "d", "fc"))
    assert list(editor.constants) == ["w_2"]
    assert editor.add_constant("w", torch.ones(1)) == "w"
    assert list(editor.finish().constants) == ["w_2"], "what nothing has read is not there"
    assert d.inputs == ("x", "w"), "nodes are not changed"
