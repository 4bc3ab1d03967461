from __future__ import annotations

import torch
from torch import nn

from netopt.graph import Graph, interpret, verify
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.fold_constants import fold_constants
from netopt.ops import Arithmetic, Concat, Dense, Pointwise, Reshape, TensorType


def _builder(*shape: int) -> GraphBuilder:
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType(shape)}
    return builder


def _folded(graph: Graph) -> Graph:
    """The graph after the pass, which must be valid, keep the outputs' types, and find nothing in its own result."""
    folded = fold_constants(graph)
    verify(folded)
    assert [folded.types[name] for name in folded.outputs] == [graph.types[name] for name in graph.outputs]
    assert str(fold_constants(folded)) == str(folded)
    return folded


def test_what_depends_on_constants_alone_is_computed() -> None:
    builder = _builder(2, 3)
    a = builder.add_constant("a", torch.tensor([1.0, 2.0, 3.0]))
    b = builder.add_constant("b", torch.tensor([4.0, 0.0, -4.0]))
    total = builder.add_node(Arithmetic("add"), (a, b), "total", "")
    relu = builder.add_node(Pointwise("relu"), (total,), "relu", "")
    builder.outputs = (builder.add_node(Arithmetic("mul"), ("x", relu), "y", ""),)
    folded = _folded(builder.finish())
    assert [node.output for node in folded.nodes] == ["y"]
    assert torch.equal(folded.constants["relu"], torch.tensor([5.0, 2.0, 0.0]))
    assert set(folded.constants) == {"relu"}, "nothing reads the others any more"
    x = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 7.0]])
    assert torch.equal(interpret(folded, [x])[0], x * torch.tensor([5.0, 2.0, 0.0]))


def test_a_node_that_reads_an_input_too_stays() -> None:
    builder = _builder(2)
    a = builder.add_constant("a", torch.ones(2))
    builder.outputs = (builder.add_node(Arithmetic("add"), ("x", a), "y", ""),)
    graph = builder.finish()
    assert str(_folded(graph)) == str(graph)


def test_an_output_that_is_constant_becomes_a_constant() -> None:
    builder = _builder(2)
    a = builder.add_constant("a", torch.tensor([-1.0, 1.0]))
    builder.outputs = (builder.add_node(Pointwise("relu"), (a,), "y", ""), "x")
    folded = _folded(builder.finish())
    assert folded.nodes == ()
    assert torch.equal(folded.constants["y"], torch.tensor([0.0, 1.0]))
    assert torch.equal(interpret(folded, [torch.ones(2)])[0], torch.tensor([0.0, 1.0]))


def test_a_constant_that_is_still_read_stays() -> None:
    builder = _builder(2, 2)
    a = builder.add_constant("a", torch.tensor([1.0, 2.0, 3.0, 4.0]))
    square = builder.add_node(Reshape((2, 2)), (a,), "square", "")
    sums = builder.add_node(Arithmetic("add"), ("x", square), "y", "")
    builder.outputs = (sums, a)
    folded = _folded(builder.finish())
    assert set(folded.constants) == {"a", "square"}


def test_folded_values_are_rounded_once() -> None:
    """A sum of 1 and two halves of its last bit: term after term in float32, each half is rounded away."""
    builder = _builder(1, 1)
    terms = builder.add_constant("terms", torch.tensor([[1.0, 2.0**-24, 2.0**-24]]))
    ones = builder.add_constant("ones", torch.ones(1, 3))
    total = builder.add_node(Dense(), (terms, ones), "total", "")
    builder.outputs = (builder.add_node(Concat(0), (total, "x"), "y", ""),)
    folded = _folded(builder.finish())
    assert folded.constants["total"].item() == 1.0 + 2.0**-23
    assert folded.constants["total"].dtype == torch.float32


def test_folded_values_are_contiguous_and_float32() -> None:
    layer = nn.Linear(3, 5, bias=False)

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.layer.weight.t())

    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    graph, _ = capture(Transposed(), x)
    folded = _folded(graph)
    assert len(folded.nodes) == 1
    (weight,) = folded.constants.values()
    assert weight.is_contiguous()
    assert torch.equal(weight, layer.weight.detach().T)
    # A copy, so the answers are the same to the bit.
    assert torch.equal(interpret(folded, [x])[0], interpret(graph, [x])[0])


def test_the_original_keeps_its_constants() -> None:
    builder = _builder(2)
    a = builder.add_constant("a", torch.tensor([-1.0, 1.0]))
    builder.outputs = (builder.add_node(Pointwise("relu"), (a,), "y", ""),)
    graph = builder.finish()
    before = str(graph)
    fold_constants(graph)
    assert str(graph) == before
    assert torch.equal(graph.constants["a"], torch.tensor([-1.0, 1.0]))
