"""Which values are codes, and which share a format."""

from __future__ import annotations

import torch
from torch import nn

from netopt.graph import Graph
from netopt.graph.capture import capture
from netopt.graph.passes import run_passes
from netopt.graph.passes.structure import STRUCTURE
from netopt.ops import Convert
from netopt.quantized.assign import Assignment, assign, layers_of, separate_outputs
from tests.quantized.networks import make


def graph_of(model: nn.Module, x: torch.Tensor) -> Graph:
    return separate_outputs(run_passes(capture(model.eval(), x)[0], STRUCTURE))


def assigned(name: str) -> tuple[Graph, Assignment]:
    model, x = make(name)
    graph = graph_of(model, x[:1])
    layers = {node.output for node in layers_of(graph)}
    return graph, assign(graph, lambda node: node.output in layers)


def test_all_that_lies_between_layers_is_codes() -> None:
    graph, found = assigned("branches")
    assert found.values == {*graph.inputs, *(node.output for node in graph.nodes)} - set(graph.outputs)
    assert found.layers == tuple(node.output for node in graph.nodes if node.op.name == "conv2d")


def test_what_only_moves_shares_a_format() -> None:
    _, found = assigned("residual")
    (pooled,) = [group for group in found.groups if "max_pool2d" in group]
    assert len(pooled) == 2, "with what is pooled"
    _, found = assigned("branches")
    (joined,) = [group for group in found.groups if "cat" in group]
    assert len(joined) == 3, "with both that are concatenated"


def test_what_floats_compute_stays_float() -> None:
    graph, found = assigned("attention")
    softmax = next(node for node in graph.nodes if node.op.name == "softmax")
    assert softmax.output not in found.values and softmax.inputs[0] not in found.values
    layers = [node for node in graph.nodes if node.output in found.layers]
    assert all(node.inputs[0] in found.values for node in layers)


def test_only_chosen_layers_ask_for_codes() -> None:
    model, x = make("mlp")
    graph = graph_of(model, x[:1])
    last = layers_of(graph)[-1]
    found = assign(graph, lambda node: node.output == last.output)
    assert found.layers == (last.output,) and found.values == {last.inputs[0]}


def test_an_output_that_is_read_has_a_copy_for_its_readers() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.a(x)
            return y, self.b(y)

    graph = graph_of(Two(), torch.ones(1, 4))
    copies = [node for node in graph.nodes if isinstance(node.op, Convert)]
    assert [node.inputs for node in copies] == [(graph.outputs[0],)]
    found = assign(graph, lambda node: True)
    assert copies[0].output in found.values and graph.outputs[0] not in found.values
