"""What importers share: where they put their nodes, and how ATen writes sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from netopt.graph.graph import GraphBuilder
from netopt.numerics import Shape
from netopt.ops import Op

Imported = str | tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """Where an importer puts its nodes: the builder, the name wished for the result, the layer's qualified name."""

    builder: GraphBuilder
    wish: str
    layer: str

    def shape(self, value: str) -> Shape:
        return self.builder.types[value].shape

    def axis(self, value: str, axis: int) -> int:
        """`axis` counted from the front."""
        rank = len(self.shape(value))
        return axis + rank if axis < 0 else axis

    def add(self, op: Op, *inputs: str) -> str:
        return self.builder.add_node(op, inputs, self.wish, self.layer)

    def operand(self, value: str | float) -> str:
        """A value as it is; a Python number as a constant of no axes."""
        if isinstance(value, str):
            return value
        return self.builder.add_constant(f"{self.wish}_number", torch.tensor(float(value), dtype=torch.float32))

    def filled(self, value: str | None, shape: Shape, fill: float, role: str) -> str:
        """`value`, or where that is absent a constant full of `fill`."""
        if value is not None:
            return value
        return self.builder.add_constant(f"{self.wish}_{role}", torch.full(shape, fill, dtype=torch.float32))


Importer = Callable[[Context, dict[str, Any]], Imported]


def pair(value: Sequence[int]) -> tuple[int, int]:
    return (value[0], value[-1])


def both_sides(padding: Sequence[int]) -> tuple[int, int, int, int]:
    return (padding[0], padding[0], padding[-1], padding[-1])
