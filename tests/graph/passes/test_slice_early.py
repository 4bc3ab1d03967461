"""Slices that move before what they cut."""

from __future__ import annotations

import torch
from torch import nn

from netopt.graph import interpret
from netopt.graph.capture import capture
from netopt.graph.graph import GraphBuilder
from netopt.graph.passes.slice_early import slice_early
from netopt.ops import Arithmetic, Pointwise, Slice, Softmax, TensorType
from netopt.zoo.vit import Block
from tests.pipelines import run_passes


class FirstToken(nn.Module):
    """A transformer's block of which one token is read."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.norm, self.head = Block(12, 3, 2), nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.block(x))[:, 0])


def test_one_token_is_computed_from_where_the_tokens_meet() -> None:
    torch.manual_seed(0)
    model, x = FirstToken().eval(), torch.randn(2, 7, 12)
    graph = run_passes(capture(model, x)[0])
    with torch.no_grad():
        torch.testing.assert_close(interpret(graph, [x])[0], model(x))
    rows = {f"{n.op.label} {n.layer}": graph.types[n.output].shape for n in graph.nodes}
    assert rows["dense block.attention.qkv"] == (2, 7, 36)
    assert rows["softmax block.attention"] == (2, 3, 1, 7)
    assert rows["dense + gelu block.mlp.0"] == (2, 1, 24)


def test_what_mixes_the_parts_or_is_read_elsewhere_stays() -> None:
    builder = GraphBuilder()
    builder.inputs, builder.types["x"] = ("x",), TensorType((4, 6))
    mixed = builder.add_node(Softmax(0), ("x",), "mixed", "")
    cut = builder.add_node(Slice(0, 1, 3), (mixed,), "cut", "")
    relu = builder.add_node(Pointwise("relu"), ("x",), "relu", "")
    part, other = (builder.add_node(Slice(0, at, at + 1), (relu,), "part", "") for at in (0, 1))
    builder.outputs = (cut, part, other)
    graph = builder.finish()
    assert slice_early(graph) == graph


def test_operands_that_broadcast_are_cut_where_they_are_wide() -> None:
    builder = GraphBuilder()
    builder.inputs = ("x", "y")
    builder.types |= {"x": TensorType((4, 6)), "y": TensorType((6,))}
    number = builder.add_constant("column", torch.arange(4.0)[:, None])
    total = builder.add_node(
        Arithmetic("add"), (builder.add_node(Arithmetic("mul"), ("x", "y"), "p", ""), number), "s", ""
    )
    builder.outputs = (builder.add_node(Slice(0, 1, 4, 2), (total,), "cut", ""),)
    graph = builder.finish()
    result = slice_early(graph)
    inputs = [torch.randn(4, 6), torch.randn(6)]
    assert torch.equal(interpret(result, inputs)[0], interpret(graph, inputs)[0])
    assert [node.op for node in result.nodes] == [Slice(0, 1, 4, 2), Arithmetic("mul"), Arithmetic("add")]
