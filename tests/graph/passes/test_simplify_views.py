"""Chains of reshapes and permutations."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.graph import Graph, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.simplify_views import simplify_views
from netopt.ops import Op, Permute, Pointwise, Reshape, TensorType


def chain(shape: tuple[int, ...], *ops: Op) -> Graph:
    """The ops, one after the other, on an input of this shape."""
    builder = GraphBuilder()
    builder.inputs, builder.types["x"] = ("x",), TensorType(shape)
    value = "x"
    for op in ops:
        value = builder.add_node(op, (value,), "y", "layer")
    builder.outputs = (value,)
    return builder.finish()


def simplified(graph: Graph) -> list[Op]:
    """The ops that are left on the way to the output, which must be the same."""
    result = simplify_views(graph)
    verify(result)
    x = torch.arange(float(graph.types["x"].elements)).reshape(graph.types["x"].shape)
    assert torch.equal(interpret(result, [x])[0], interpret(graph, [x])[0])
    ops: list[Op] = []
    value, producers = result.outputs[0], result.producers()
    while value in producers:
        ops.insert(0, producers[value].op)
        value = producers[value].inputs[0]
    return ops


def test_tokens_of_an_image_are_its_pixels() -> None:
    graph = chain((2, 3, 4, 5), Reshape((2, 3, 20)), Permute((0, 2, 1)))
    assert simplified(graph) == [Permute((0, 2, 3, 1)), Reshape((2, 20, 3))]
    row = chain((1, 3, 1, 5), Reshape((1, 3, 5)), Permute((0, 2, 1)))
    assert simplified(row) == [Permute((0, 2, 3, 1)), Reshape((1, 5, 3))]


def test_axes_of_size_1_move_for_free() -> None:
    assert simplified(chain((4, 1, 6), Permute((1, 0, 2)))) == [Reshape((1, 4, 6))]


def test_permutations_that_undo_each_other() -> None:
    assert simplified(chain((4, 3, 6), Permute((1, 0, 2)), Permute((1, 0, 2)))) == []
    assert simplified(chain((4, 6), Permute((1, 0)), Reshape((3, 2, 4)), Permute((2, 0, 1)))) == [Reshape((4, 3, 2))]


def test_heads_are_taken_apart_once() -> None:
    graph = chain((4, 2, 6), Reshape((4, 6, 2)), Permute((1, 0, 2)), Reshape((2, 3, 4, 2)))
    assert simplified(graph) == [Reshape((4, 2, 3, 2)), Permute((1, 2, 0, 3))]


def test_a_permutation_with_other_readers_is_made_once() -> None:
    graph = chain((4, 6), Permute((1, 0)), Reshape((3, 8)))
    builder = GraphBuilder(graph)
    builder.nodes = list(graph.nodes)
    builder.outputs = (*graph.outputs, builder.add_node(Pointwise("relu"), (graph.nodes[0].output,), "r", ""))
    assert simplify_views(builder.finish()).nodes == tuple(builder.nodes)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.data())
def test_any_chain_keeps_its_meaning(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    ops: list[Op] = []
    current = shape
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            axes = tuple(data.draw(st.permutations(range(len(current)))))
            current = tuple(current[axis] for axis in axes)
            ops.append(Permute(axes))
        else:
            at = data.draw(st.integers(0, len(current) - 1))
            merged = int(torch.Size(current[at : at + 2]).numel())
            split = (2, merged // 2) if merged % 2 == 0 and data.draw(st.booleans()) else (merged,)
            current = (*current[:at], *split, *current[at + 2 :])
            ops.append(Reshape(current))
    left = simplified(chain(shape, *ops))
    assert sum(isinstance(op, Permute) for op in left) <= max(1, sum(isinstance(op, Permute) for op in ops))
