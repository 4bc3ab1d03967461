"""Inputs of many rows, cut into what a network of a fixed batch size takes at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from netopt.errors import InvalidArgument
from netopt.graph import Graph
from netopt.numerics import Shape


class Rows:
    """The inputs of one run after the other.

    Attributes:
        runs: how many there are.
        left: rows of the first input with more than fit into runs.
    """

    def __init__(self, graph: Graph, tensors: Sequence[torch.Tensor]) -> None:
        """Check what is given.

        Args:
            graph: of the network.
            tensors: for each of its inputs, in order, one of as many rows as there are; scalars are for all runs.

        Raises:
            InvalidArgument: the tensors do not fit the inputs.
        """
        if len(tensors) != len(graph.inputs):
            expected = f"a tensor for each of {', '.join(graph.inputs)}"
            raise InvalidArgument("inputs", expected=expected, found=f"{len(tensors)} tensors")
        self._parts: list[tuple[torch.Tensor, int]] = []
        self.runs, self.left = 1, 0
        counts = []
        for name, tensor in zip(graph.inputs, tensors, strict=True):
            type_ = graph.types[name]
            _check_shape(name, tensor, type_.shape)
            if type_.format.is_whole and tensor.dtype != type_.format.tensor_dtype:
                expected = f"dtype {type_.format.tensor_dtype}"
                raise InvalidArgument(f"input '{name}'", expected=expected, found=tensor.dtype)
            each = type_.shape[0] if type_.shape else 0
            self._parts.append((tensor, each))
            if each:
                counts.append((len(tensor) // each, len(tensor) % each))
        if counts:
            self.runs, self.left = counts[0]
        if any(runs != self.runs for runs, _ in counts):
            found = " and ".join(str(runs) for runs, _ in counts)
            raise InvalidArgument("inputs", expected="rows for as many runs in each", found=f"for {found} runs")

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for run in range(self.runs):
            yield [tensor[run * each : (run + 1) * each] if each else tensor for tensor, each in self._parts]


def _check_shape(name: str, tensor: torch.Tensor, shape: Shape) -> None:
    if not shape:
        fits = tensor.dim() == 0
    else:
        fits = tensor.dim() == len(shape) and tensor.shape[1:] == shape[1:] and len(tensor) >= shape[0]
    if not fits:
        expected = "shape " + (f"({', '.join([f'{shape[0]} or more', *map(str, shape[1:])])})" if shape else "()")
        raise InvalidArgument(f"input '{name}'", expected=expected, found=tuple(tensor.shape))
