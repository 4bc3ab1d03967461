"""What importers share: where they put their nodes, and how ATen writes sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.graph import GraphBuilder
from netopt.numerics import FLOAT32, WHOLES, NumberFormat, Shape, format_of
from netopt.ops import Cast, Op

Imported = str | tuple[str, ...]


@dataclass(frozen=True)
class Context:
    """Where an importer puts its nodes.

    Attributes:
        builder: of the graph.
        wish: the name wished for the result.
        layer: the layer's qualified name.
        dtype: of the result, as PyTorch promotes; None where there are several results, or it is not known.
    """

    builder: GraphBuilder
    wish: str
    layer: str
    dtype: torch.dtype | None = None

    def shape(self, value: str) -> Shape:
        return self.builder.types[value].shape

    def axis(self, value: str, axis: int) -> int:
        """`axis` counted from the front."""
        rank = len(self.shape(value))
        return axis + rank if axis < 0 else axis

    def add(self, op: Op, *inputs: str) -> str:
        return self.builder.add_node(op, inputs, self.wish, self.layer)

    def operand(self, value: str | float, format_: NumberFormat = FLOAT32) -> str:
        """A value as it is; a Python number as a constant of no axes."""
        if isinstance(value, str):
            return value
        number = torch.tensor(value, dtype=format_.tensor_dtype)
        return self.builder.add_constant(f"{self.wish}_number", number, format_)

    def format(self, value: str) -> NumberFormat:
        return self.builder.types[value].format

    def cast(self, value: str | float, format_: NumberFormat) -> str:
        """A value, or a Python number, in a format."""
        if not isinstance(value, str):
            return self.operand(value, format_)
        if self.format(value) == format_:
            return value
        return self.builder.add_node(Cast(format_.name), (value,), f"{value}_{format_.name}", self.layer)

    def real(self, value: str) -> str:
        """A value in float32, for functions of real numbers: PyTorch converts whole numbers for them, too.

        Raises:
            UnsupportedModel: the result is to be of whole numbers.
        """
        if not self.format(value).is_whole:
            return value
        if self.dtype not in (None, torch.float32):
            raise UnsupportedModel(
                "a function of whole numbers", expected="float32", found=self.dtype, fix="use .float()"
            )
        return self.cast(value, FLOAT32)

    def result_format(self, asked: torch.dtype | None = None) -> NumberFormat:
        """The format of the result: of the type that is asked for, or that PyTorch gives it.

        Raises:
            UnsupportedModel: a graph has no such values.
        """
        dtype = asked or self.dtype
        format_ = FLOAT32 if dtype is None else format_of(dtype)
        if format_ is None:
            names = ", ".join(known.name for known in (FLOAT32, *WHOLES))
            raise UnsupportedModel(
                "result", expected=names, found=dtype, layer=self.layer, fix="convert it with .float()"
            )
        return format_

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
