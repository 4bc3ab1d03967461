"""The golden executor: runs a graph on the references of its ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from netopt.graph.graph import Graph
from netopt.numerics import FLOAT32

# Called with the name of an input or a computed value, with its numbers, and with them as they are read again.
Watch = Callable[[str, torch.Tensor, torch.Tensor], None]


def interpret(
    graph: Graph, inputs: Sequence[torch.Tensor], *, dtype: torch.dtype = torch.float32, watch: Watch | None = None
) -> tuple[torch.Tensor, ...]:
    """The graph's outputs for `inputs`, which are flat and in order, as is the result.

    Args:
        dtype: floating type to compute in; float64 gives the answer that float32 rounding is judged by.
        watch: sees each input and computed value, in order.
    """

    def store(name: str, value: torch.Tensor) -> torch.Tensor:
        stored = _stored(graph, name, value, dtype)
        if watch is not None:
            watch(name, value, stored)
        return stored

    with torch.no_grad():
        values = {name: graph.numbers(name, dtype) for name in graph.constants}
        given = zip(graph.inputs, inputs, strict=True)
        values |= {name: store(name, value) for name, value in given}
        for node in graph.nodes:
            y = node.op.evaluate(*(values[name] for name in node.inputs))
            values[node.output] = store(node.output, y)
        return tuple(values[name] for name in graph.outputs)


def _stored(graph: Graph, name: str, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The value as it is read again: rounded, where it is stored in less than it was computed in."""
    format_ = graph.types[name].format
    if format_.is_whole:
        return value
    if format_ == FLOAT32:
        return value.to(dtype)  # what the caller computes in stands for it
    return format_.decode(format_.encode(value), dtype)
