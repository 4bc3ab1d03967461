"""The golden executor: runs a graph on the references of its ops."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from netopt.graph.graph import Graph


def interpret(
    graph: Graph, inputs: Sequence[torch.Tensor], *, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, ...]:
    """The graph's outputs for `inputs`, which are flat and in order, as is the result.

    Args:
        dtype: floating type to compute in; float64 gives the answer that float32 rounding is judged by.
    """
    with torch.no_grad():
        values = {name: value.to(dtype) for name, value in graph.constants.items()}
        values |= {name: value.to(dtype) for name, value in zip(graph.inputs, inputs, strict=True)}
        for node in graph.nodes:
            values[node.output] = node.op.reference(*(values[name] for name in node.inputs))
        return tuple(values[name] for name in graph.outputs)
