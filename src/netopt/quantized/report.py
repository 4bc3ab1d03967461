"""What became of a network's layers and values: formats, saturation, and signal to noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from netopt.console import render_table
from netopt.example import Example
from netopt.graph import Node
from netopt.numerics import Affine, CodeFormat, FixedPoint, NumberFormat
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.pointwise import Pointwise
from netopt.quantized.assign import layers_of
from netopt.quantized.network import QuantizedNetwork

# Activations with which a layer's codes are exact: those that rounding can change places with.
_EXACT = ("relu", "hardtanh")


@dataclass(frozen=True)
class StepReport:
    """What one op computes on, and how well its result is kept.

    Attributes:
        layer: qualified name of the module that it comes from.
        op: what it computes.
        value: name of what it writes.
        reads: the format of its first input.
        weight: the format of its weight; empty where it has none.
        writes: the format of what it writes.
        is_integer: whether it computes on codes alone, so that its result is the same on every machine.
        saturated: share of the numbers it writes that lie beyond the codes.
        sqnr_db: power of what it writes over that of the rounding of it, in dB; None where nothing is rounded.
        weight_sqnr_db: the same of its weight.
    """

    layer: str
    op: str
    value: str
    reads: str
    weight: str
    writes: str
    is_integer: bool
    saturated: float
    sqnr_db: float | None
    weight_sqnr_db: float | None


@dataclass(frozen=True)
class QuantizationReport:
    """A row for each op of a network, in order, and what was decided.

    Attributes:
        rows: the ops.
        notes: decisions, such as which layers were given 16 bits.
    """

    rows: tuple[StepReport, ...]
    notes: tuple[str, ...] = ()

    @property
    def float_steps(self) -> tuple[str, ...]:
        """The ops that compute in floats, by the value that they write."""
        return tuple(row.value for row in self.rows if not row.is_integer)

    def __str__(self) -> str:
        columns = ("layer", "op", "reads", "weight", "writes", "saturated", "SQNR dB", "weight SQNR dB", "computes in")
        rows = [
            (
                row.layer,
                row.op,
                row.reads,
                row.weight,
                row.writes,
                f"{100 * row.saturated:.3f} %" if row.sqnr_db is not None else "",
                _decibels(row.sqnr_db),
                _decibels(row.weight_sqnr_db),
                "codes" if row.is_integer else "floats",
            )
            for row in self.rows
        ]
        whole = sum(row.is_integer for row in self.rows)
        counts = f"{whole} of {len(self.rows)} ops compute on codes alone; the others in float32"
        return "\n".join([render_table(columns, rows, text_columns=5), counts, *self.notes])


def report_on(network: QuantizedNetwork, sample: Example, notes: tuple[str, ...] = ()) -> QuantizationReport:
    """The report, with signal to noise as it is on a sample of inputs, each value of what was rounded before it."""
    nodes = {node.output: node for node in network.example_graph.nodes}
    layers = {node.output for node in layers_of(network.example_graph)}
    rows = []
    with torch.no_grad():
        for name, value in network.watch(sample):
            if name in nodes:
                rows.append(_row(network, nodes[name], value, nodes[name].output in layers))
    return QuantizationReport(tuple(rows), notes)


def _row(network: QuantizedNetwork, node: Node, value: torch.Tensor, is_layer: bool) -> StepReport:
    weight = network.format_of(node.inputs[1]) if is_layer else None
    writes = network.format_of(node.output)
    quantizer = network.quantizer(node.output)
    return StepReport(
        layer=node.layer,
        op=node.op.label,
        value=node.output,
        reads=format_text(network.format_of(node.inputs[0])) if node.inputs else "",
        weight=format_text(weight) if is_layer else "",
        writes=format_text(writes),
        is_integer=_is_integer(network, node, is_layer),
        saturated=_saturated(value, writes),
        sqnr_db=None if quantizer is None else sqnr(value, quantizer(value)),
        weight_sqnr_db=_weight_sqnr(network, node.inputs[1]) if weight is not None else None,
    )


def _is_integer(network: QuantizedNetwork, node: Node, is_layer: bool) -> bool:
    """Whether what it writes is exact: a layer's codes, of codes, or what an op that takes codes makes of them."""
    given = [name for name in node.inputs if name not in network.example_graph.constants]
    if network.format_of(node.output) is None or any(network.format_of(name) is None for name in given):
        return False
    if not is_layer:
        formats = [network.format_of(name) for name in given]
        return all(isinstance(format_, CodeFormat) and node.op.is_exact_on(format_) for format_ in formats)
    assert isinstance(node.op, EpilogueOp)
    activation = node.op.activation
    plain = activation is None or (isinstance(activation, Pointwise) and activation.function in _EXACT)
    return plain and network.format_of(node.inputs[1]) is not None


def _weight_sqnr(network: QuantizedNetwork, name: str) -> float | None:
    quantizer = network.quantizer(name)
    weight = network.weight(name)
    return None if quantizer is None else sqnr(weight, quantizer(weight))


def sqnr(value: torch.Tensor, rounded: torch.Tensor) -> float:
    """Signal to quantization noise, in dB: 10 log10 of sum x^2 / sum (x - rounded)^2; infinite without noise."""
    signal, noise = value.double().square().sum(), (value.double() - rounded.double()).square().sum()
    if float(noise) == 0.0:
        return math.inf
    return 10.0 * math.log10(float(signal / noise)) if float(signal) > 0.0 else -math.inf


def _saturated(value: torch.Tensor, format_: NumberFormat | None) -> float:
    if not isinstance(format_, CodeFormat) or format_.is_by_channel:
        return 0.0
    low, high = format_.bounds
    half = format_.steps[0] / 2
    return float(((value < low - half) | (value >= high + half)).double().mean())


def format_text(format_: NumberFormat | None) -> str:
    """A format as tables show it: bits, U for unsigned, and the position, or the range of positions of channels."""
    if isinstance(format_, FixedPoint):
        kind = f"{'' if format_.signed else 'U'}FIXED{format_.bits}"
        low, high = min(format_.fractions), max(format_.fractions)
        return f"{kind}_{low}" if low == high else f"{kind}_{low}..{high}"
    if isinstance(format_, Affine):
        kind = f"{'' if format_.signed else 'U'}AFFINE{format_.bits}"
        return f"{kind} {min(format_.steps):.4g}" if len(set(format_.steps)) == 1 else kind
    return "FLOAT32" if format_ is None else format_.name.upper()


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
