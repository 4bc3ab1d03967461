"""Small graphs whose values have codes, and programs of them."""

from __future__ import annotations

import dataclasses

import torch

from netopt.graph import Graph, Nesting, Signature, verify
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes import run_passes
from netopt.memory import check_plan, order_for_memory, plan_memory
from netopt.numerics import NumberFormat
from netopt.ops import Op, TensorType
from netopt.program.file import Network
from netopt.program.options import Lowering
from netopt.program.pipeline import storage
from netopt.program.program import Program

TENSOR = Nesting("tensor")


class CodeGraph:
    """A graph under construction; values are called by what `add` returns."""

    def __init__(self, **inputs: TensorType) -> None:
        self.builder = GraphBuilder()
        self.builder.inputs, self.builder.types = tuple(inputs), dict(inputs)

    def add(self, op: Op, *inputs: str, format_: NumberFormat) -> str:
        """An op whose value is stored in a format."""
        name = self.builder.add_node(op, inputs, op.label.replace(" ", "_"), "")
        self.builder.types[name] = dataclasses.replace(self.builder.types[name], format=format_)
        return name

    def graph(self, *outputs: str) -> Graph:
        """The graph as it was built."""
        self.builder.outputs = outputs
        graph = self.builder.finish()
        verify(graph)
        return graph


def network_of(graph: Graph) -> Network:
    """The graph after the passes of storage, planned."""
    graph = order_for_memory(run_passes(graph, storage(Lowering())))
    plan = plan_memory(graph)
    check_plan(graph, plan)
    outputs = Nesting("tuple", (), (TENSOR,) * len(graph.outputs))
    return Network(
        graph, plan, Signature(Nesting("tuple", (), (TENSOR,) * len(graph.inputs)), Nesting("dict"), outputs)
    )


def program_of(graph: Graph) -> Program:
    """The program; it returns a tuple."""
    return Program(network_of(graph), Lowering())


def codes_of(graph: Graph, results: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """What the interpreter's outputs are stored as."""
    return [graph.types[name].format.encode(value) for name, value in zip(graph.outputs, results, strict=True)]
