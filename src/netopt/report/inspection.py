"""What is in a lowered network: of each step type, position, bytes and memory, and on data what rounding does there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from netopt.console import count, progress, render_table
from netopt.graph import Graph, Node, interpret
from netopt.numerics import CodeFormat, Shape
from netopt.program.file import Network
from netopt.quantized.types import position_text, type_name
from netopt.report.rounding import Histogram, Rounding, histogram_of_codes
from netopt.report.rows import Rows

# Of codes that are no sums.
_MOST_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A weight, a bias or another constant of a step.

    Attributes:
        name: in the network's graph.
        shape: its extents.
        type: see `netopt.quantized.types.type_name`.
        position: n, or the range of n of its channels, or scales.
        bytes: as it is stored in the file.
        histogram: of its codes; None where it has none.
    """

    name: str
    shape: Shape
    type: str
    position: str
    bytes: int
    histogram: Histogram | None

    @property
    def format(self) -> str:
        """Type and position."""
        return self.type if self.type.endswith(f"_{self.position}") else f"{self.type} {self.position}".strip()


@dataclass(frozen=True, kw_only=True)
class InspectedStep:
    """An input, or a step and what it computes.

    Attributes:
        value: the name of what is computed.
        op: what computes it; "input" of an input.
        layer: the layer of the model that it comes from.
        shape: its extents.
        type: see `netopt.quantized.types.type_name`.
        position: n, or the scale.
        bytes: of the value in the arena, halo included.
        offset: its first byte there; None of what needs no place.
        arena_bytes: bytes of the arena that are taken while the step runs.
        constants: what it reads besides values.
        range: the smallest and the largest number that was computed.
        saturated: share of the computed numbers that lie beyond the codes.
        sqnr_db: power of what was computed over that of its rounding here, in dB.
        histogram: of the numbers before and after rounding.

    The last four are None without data, and where there is nothing to say: without codes, or without rounding.
    """

    value: str
    op: str
    layer: str
    shape: Shape
    type: str
    position: str
    bytes: int
    offset: int | None
    arena_bytes: int
    constants: tuple[Constant, ...]
    range: tuple[float, float] | None = None
    saturated: float | None = None
    sqnr_db: float | None = None
    histogram: Histogram | None = None


@dataclass(frozen=True)
class Inspection:
    """A network, inspected.

    Attributes:
        steps: inputs and steps, in order.
        arena_bytes: size of the arena.
        lower_bound: bytes; no placement of the same values is smaller.
        constant_bytes: bytes of all constants in the file.
        runs: how often the network was run on data; 0 without.
        notes: what a reader must know.
    """

    steps: tuple[InspectedStep, ...]
    arena_bytes: int
    lower_bound: int
    constant_bytes: int
    runs: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        columns = ["op", "layer", "value", "type", "position", "weights", "bytes", "weight bytes", "arena"]
        columns += ["smallest", "largest", "saturated", "SQNR dB"] if self.runs else []
        table = render_table(columns, [self._row(step) for step in self.steps], text_columns=6)
        totals = (
            f"arena {count(self.arena_bytes)} bytes (lower bound {count(self.lower_bound)}), "
            f"constants {count(self.constant_bytes)} bytes"
        )
        return "\n".join([table, totals, *self.notes])

    def _row(self, step: InspectedStep) -> list[str]:
        weight = step.constants[0] if step.constants else None
        row = [step.op, step.layer, step.value, step.type, step.position]
        row += ["" if weight is None else weight.format]
        row += [count(step.bytes), count(sum(c.bytes for c in step.constants)) if step.constants else ""]
        row += [count(step.arena_bytes)]
        if not self.runs:
            return row
        low, high = ("", "") if step.range is None else (f"{number:.4g}" for number in step.range)
        return [*row, low, high, share_text(step.saturated), decibels_text(step.sqnr_db)]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; what is not finite, such as the SQNR of what rounding leaves as it was, is None."""
        data: dict[str, Any] = _finite(asdict(self))
        return data


def share_text(share: float | None) -> str:
    """A share as tables show it."""
    return "" if share is None else f"{100 * share:.3f} %"


def decibels_text(value: float | None) -> str:
    """Signal to noise as tables show it."""
    if value is None:
        return ""
    return f"{value:.1f}" if math.isfinite(value) else "exact" if value > 0 else "lost"


def inspect_network(network: Network, calibration: Sequence[torch.Tensor] | None = None) -> Inspection:
    """Inspect a network.

    With data, each step's reference is evaluated in float64 on what it reads, which has been rounded, and its result is
    compared with what is stored of it: this is the error of this one rounding, not what has come of those before.

    Args:
        network: as `netopt.program.file.read_network` gives it.
        calibration: for each of its inputs, in order, a tensor of as many rows as there are, of which the network takes
            as many at a time as its own input has.

    Raises:
        InvalidArgument: the tensors do not fit the inputs.
    """
    graph, plan = network.graph, network.plan
    seen, runs, notes = ({}, 0, ()) if calibration is None else _measure(graph, calibration)
    taken = [sum(stay.bytes for stay in plan.timeline.alive(time)) for time in range(len(graph.nodes) + 2)]
    steps = [_step(network, name, None, taken[0], seen) for name in graph.inputs]
    steps += [_step(network, node.output, node, taken[index + 1], seen) for index, node in enumerate(graph.nodes)]
    bytes_ = sum(_stored_bytes(graph, name) for name in graph.constants)
    return Inspection(tuple(steps), plan.arena_bytes, plan.lower_bound, bytes_, runs, notes)


def _step(network: Network, name: str, node: Node | None, taken: int, seen: dict[str, Rounding]) -> InspectedStep:
    graph, type_, rounding = network.graph, network.graph.types[name], seen.get(name)
    inputs = () if node is None else tuple(dict.fromkeys(node.inputs))
    return InspectedStep(
        value=name,
        op="input" if node is None else node.op.label,
        layer="" if node is None else node.layer,
        shape=type_.shape,
        type=type_name(type_.format),
        position=position_text(type_.format),
        bytes=type_.bytes,
        offset=network.plan.offsets.get(name),
        arena_bytes=taken,
        constants=tuple(_constant(graph, given) for given in inputs if given in graph.constants),
        range=None if rounding is None else rounding.range,
        saturated=None if rounding is None else rounding.saturated,
        sqnr_db=None if rounding is None else rounding.sqnr_db,
        histogram=None if rounding is None else rounding.histogram,
    )


def _constant(graph: Graph, name: str) -> Constant:
    format_ = graph.types[name].format
    histogram = None
    # Of sums, such as biases, hardly any code stands twice.
    if isinstance(format_, CodeFormat) and format_.bits <= _MOST_BITS:
        histogram = histogram_of_codes(format_, graph.constants[name])
    return Constant(
        name=name,
        shape=graph.types[name].shape,
        type=type_name(format_),
        position=position_text(format_),
        bytes=_stored_bytes(graph, name),
        histogram=histogram,
    )


def _stored_bytes(graph: Graph, name: str) -> int:
    """Bytes of a constant in the file, without padding."""
    type_ = graph.types[name]
    return type_.format.storage_bytes(type_.shape)


def _measure(graph: Graph, calibration: Sequence[torch.Tensor]) -> tuple[dict[str, Rounding], int, tuple[str, ...]]:
    """What rounding does to each value of real numbers, the number of runs, and a note on what was left out."""
    rows = Rows(graph, calibration)
    names = [*graph.inputs, *(node.output for node in graph.nodes)]
    seen = {name: Rounding(graph.types[name].format) for name in names if not graph.types[name].format.is_whole}

    def watch(name: str, computed: torch.Tensor, stored: torch.Tensor) -> None:
        if name in seen:
            seen[name].update(computed, stored)

    with progress("inspect", rows.runs) as bar:
        for tensors in rows:
            given = [
                tensor if name not in seen else tensor.double()
                for name, tensor in zip(graph.inputs, tensors, strict=True)
            ]
            interpret(graph, given, dtype=torch.float64, watch=watch)
            bar.advance()
    note = f"left out, since the network takes a fixed number at a time: the last {rows.left} inputs"
    return seen, rows.runs, (note,) if rows.left else ()


def _finite(data: Any) -> Any:
    """Plain data without the numbers that JSON has not."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
