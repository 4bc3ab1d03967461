"""Graphs of dense layers, for the tests of the passes that fuse something into them."""

from __future__ import annotations

import torch

from netopt.graph import Graph, interpret, verify
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes import Pass
from netopt.ops import Arithmetic, Dense, TensorType

GENERATOR = torch.Generator().manual_seed(0)
WEIGHT, BIAS, X = (torch.randn(shape, generator=GENERATOR) for shape in ((4, 4), (4,), (3, 4)))


class Builder(GraphBuilder):
    """A graph of x (3, 4) with dense layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = ("x",)
        self.types = {"x": TensorType((3, 4))}
        self.weight, self.bias = self.add_constant("w", WEIGHT), self.add_constant("b", BIAS)

    def dense(self, x: str, name: str, *, bias: bool = True) -> str:
        """A dense layer of x."""
        inputs = (x, self.weight, self.bias) if bias else (x, self.weight)
        return self.add_node(Dense(has_bias=bias), inputs, name, f"layer.{name}")

    def add(self, a: str, b: str, name: str) -> str:
        """The sum of a and b."""
        return self.add_node(Arithmetic("add"), (a, b), name, "")

    def give(self, *outputs: str) -> Graph:
        """The graph of these outputs."""
        self.outputs = outputs
        return self.finish()


def fused(graph: Graph, fuse: Pass) -> Graph:
    """The graph after the pass, which must be valid and give the same bits; a second time it changes nothing."""
    result = fuse(graph)
    verify(result)
    for before, after in zip(interpret(graph, [X]), interpret(result, [X]), strict=True):
        assert torch.equal(before, after)
    assert str(fuse(result)) == str(result)
    return result


def labels(graph: Graph) -> list[str]:
    """What the nodes compute."""
    return [node.op.label for node in graph.nodes]
