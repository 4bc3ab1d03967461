"""Where a chain of rising or falling functions of one number changes its sign: found by running it.

A chain is what stands between a sum or a value and its sign: scales and shifts of channels, batch normalization,
activations. Each is monotone, also as float32 computes it, since rounding is; so the sign changes once, and bisection
finds the place exactly, as the ops' references compute it. No arithmetic on the constants could say as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from netopt.graph.graph import Graph, Node

_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Change:
    """Where the sign of a chain changes, for each channel.

    Attributes:
        at: the chain is not negative where direction * x >= direction * at. In the place of +-infinity stands a number
            beyond all that x can be.
        direction: +1 where the chain rises, -1 where it falls.
    """

    at: torch.Tensor
    direction: torch.Tensor


def is_monotone(graph: Graph, node: Node, value: str, channels: int) -> bool:
    """Whether the node is a monotone function of `value` alone, the same for all elements of a channel."""
    if node.op.elementwise and len(node.inputs) > 1 and operand(graph, node, value, channels) is None:
        return False
    index = node.inputs.index(value)
    known = {i: graph.constants[name] for i, name in enumerate(node.inputs) if name in graph.constants}
    return node.op.is_monotone(index, known)


def operand(graph: Graph, node: Node, value: str, channels: int) -> torch.Tensor | None:
    """What arithmetic combines `value` with, as one finite number a channel; None where it is something else."""
    shape = graph.types[value].shape
    if node.inputs.count(value) != 1 or graph.types[node.output].shape != shape:
        return None
    constant = graph.constants.get(node.inputs[1 - node.inputs.index(value)])
    if constant is None or not torch.isfinite(constant).all():
        return None
    # The channels of images are axis 1; of anything else, the last.
    return along_channels(constant, len(shape) if len(shape) == 4 else 2, channels)


def along_channels(constant: torch.Tensor, rank: int, channels: int) -> torch.Tensor | None:
    """A constant as one number a channel (axis 1 of `rank` axes); None where it is something else."""
    if constant.numel() == 1:
        return constant.reshape(1).expand(channels)
    axis = constant.dim() - (rank - 1)  # of the constant, where axis 1 of the value is
    fits = 0 <= axis < constant.dim() and constant.shape[axis] == channels and constant.numel() == channels
    return constant.reshape(channels) if fits else None


def run(graph: Graph, chain: Sequence[Node], source: str, x: torch.Tensor) -> torch.Tensor:
    """The chain's value for numbers x (n, channels), computed in float32 as the interpreter does."""
    rank = len(graph.types[source].shape)
    value, name = x.reshape(*x.shape, *[1] * (rank - 2)), source
    for node in chain:
        value = node.op.evaluate(*(value if given == name else graph.constants[given] for given in node.inputs))
        # Past the largest number a scale of 0 would make NaN of infinity, where for all other numbers it makes 0.
        value, name = value.clamp(-_LARGEST, _LARGEST), node.output
    return value.reshape(x.shape)


def change_of_integer(graph: Graph, chain: Sequence[Node], source: str, channels: int, most: int) -> Change:
    """Where the chain changes its sign on the whole numbers from -most to most; `at` is int32."""
    return _bisect(graph, chain, source, channels, -most, most, lambda number: number.to(torch.float32), torch.int32)


def change_of_float(graph: Graph, chain: Sequence[Node], source: str, channels: int) -> Change:
    """Where the chain changes its sign on float32 numbers."""
    top = int(torch.tensor(_LARGEST).view(torch.int32))
    change = _bisect(graph, chain, source, channels, -top, top, _float_of_rank, torch.int64)
    at = _float_of_rank(change.at)
    # One beyond the largest: no number.
    at[change.at > top], at[change.at < -top] = math.inf, -math.inf
    return Change(at, change.direction.to(torch.float32))


def _float_of_rank(rank: torch.Tensor) -> torch.Tensor:
    """Float32 numbers by their place in order: 0 is zero, 1 the smallest above it, -1 the largest below."""
    magnitude = rank.abs().to(torch.int32).view(torch.float32)
    return torch.where(rank < 0, -magnitude, magnitude)


def _bisect(
    graph: Graph,
    chain: Sequence[Node],
    source: str,
    channels: int,
    low: int,
    high: int,
    number_of: Callable[[torch.Tensor], torch.Tensor],
    dtype: torch.dtype,
) -> Change:
    """The change among `number_of` the integers from low to high."""

    def is_positive(index: torch.Tensor) -> torch.Tensor:
        return run(graph, chain, source, number_of(index)[None])[0] >= 0

    first = torch.full((channels,), low, dtype=torch.int64)
    last = torch.full((channels,), high, dtype=torch.int64)
    at_first, at_last = is_positive(first), is_positive(last)
    falls = at_first & ~at_last
    # The first index whose sign is that of the last one; the signs of those before it are that of the first.
    below, above = first.clone(), last.clone()
    while bool((above - below > 1).any()):
        middle = (below + above) // 2
        is_last = is_positive(middle) == at_last
        above, below = torch.where(is_last, middle, above), torch.where(is_last, below, middle)
    at = torch.where(falls, above - 1, above)
    at = torch.where(at_first & at_last, first - 1, at)
    at = torch.where(~at_first & ~at_last, last + 1, at)
    return Change(at.to(dtype), torch.where(falls, -1, 1))
