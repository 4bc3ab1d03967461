"""Graphs of few lines, for the tests of lifetimes, plans and their proof."""

from __future__ import annotations

from netopt.graph import Graph
from netopt.graph.graph import GraphBuilder
from netopt.ops import Op, TensorType


class Builder(GraphBuilder):
    """A graph of inputs of one shape: x (8, 8), 256 bytes, unless told otherwise."""

    def __init__(self, *inputs: str, shape: tuple[int, ...] = (8, 8)) -> None:
        super().__init__()
        self.inputs = inputs or ("x",)
        self.types = {name: TensorType(shape) for name in self.inputs}

    def node(self, name: str, op: Op, *inputs: str) -> str:
        """A node without a layer; the name of its output."""
        return self.add_node(op, inputs, name, "")

    def give(self, *outputs: str) -> Graph:
        """The graph of these outputs."""
        self.outputs = outputs
        return self.finish()
