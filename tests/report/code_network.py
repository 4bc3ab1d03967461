"""A small network in codes, made by hand: a dense layer with a ReLU, and one that gives floats."""

from __future__ import annotations

import torch

from netopt.graph import Nesting, Signature
from netopt.graph.graph import GraphBuilder
from netopt.memory import plan_memory
from netopt.numerics import FixedPoint
from netopt.ops import Dense, Pointwise, TensorType
from netopt.program.file import Network

X, HIDDEN = FixedPoint(8, 4), FixedPoint(8, 2, signed=False)
# A step for each row.
WEIGHT = FixedPoint(8, (5, 6))


def code_network() -> Network:
    """x (2, 3) -> hidden (2, 2), codes of 0 to 63.75 -> y (2, 1), floats."""
    builder = GraphBuilder()
    builder.inputs = ("x",)
    builder.types = {"x": TensorType((2, 3), X)}
    numbers = torch.tensor([[1.0, 0.5, -1.0], [0.25, 0.5, 1.0]])
    weight = builder.add_constant("fc1.weight", WEIGHT.encode(numbers), WEIGHT)
    hidden = builder.add_node(Dense(activation=Pointwise("relu")), ("x", weight), "hidden", "fc1")
    builder.types[hidden] = TensorType((2, 2), HIDDEN)
    last = builder.add_constant("fc2.weight", torch.tensor([[1.0, 2.0]]))
    builder.outputs = (builder.add_node(Dense(), (hidden, last), "y", "fc2"),)
    graph = builder.finish()
    one = Nesting("tuple", (), (Nesting("tensor"),))
    return Network(graph, plan_memory(graph), Signature(one, Nesting("dict"), Nesting("tensor")))
