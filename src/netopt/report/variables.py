"""What became of the variables of a network that settings give types to: formats, bytes, and what rounding does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from netopt.console import count, render_table
from netopt.example import Example
from netopt.numerics import FLOAT32, CodeFormat, FixedPoint, NumberFormat
from netopt.quantized.network import QuantizedNetwork
from netopt.quantized.types import TypeWish, Variable, position_text
from netopt.quantized.variables import variables_of
from netopt.report.inspection import decibels_text, share_text
from netopt.report.rounding import Rounding

# Shares of saturated numbers from which on a position that the user gave is told to be a bad one.
_MOST_SATURATED = 1e-3
# And signal to noise below which it is, in dB: rounding takes half of what there is.
_LEAST_SQNR = 6.0


@dataclass(frozen=True, kw_only=True)
class VariableRow:
    """A variable and what rounding does to it.

    Attributes:
        variable: with its type as it has become.
        wish: as the user wrote it; empty for what is not listed.
        format: its number format.
        bytes: as a file has a parameter, and without a halo.
        range: the smallest and the largest number that was seen; None where none was.
        saturated: share of the numbers beyond the codes; None without codes.
        sqnr_db: signal to noise of the rounding, in dB; None where nothing is rounded.
    """

    variable: Variable
    wish: str
    format: NumberFormat
    bytes: int
    range: tuple[float, float] | None
    saturated: float | None
    sqnr_db: float | None

    def warning(self, wish: TypeWish) -> str | None:
        """What is wrong with a position that the user gave, in words; None where it holds what was seen."""
        format_ = wish.format
        if self.range is None or not isinstance(format_, FixedPoint) or not isinstance(self.format, FixedPoint):
            return None
        if self.saturated is not None and self.saturated > _MOST_SATURATED:
            low, high = format_.bounds
            what = f"{wish} holds {low:.4g} to {high:.4g}: {100 * self.saturated:.2f} % of the numbers are saturated"
        elif self.sqnr_db is not None and self.sqnr_db < _LEAST_SQNR:
            what = f"{wish} has steps of {format_.steps[0]:.4g}, too wide: signal to noise is {self.sqnr_db:.1f} dB"
        else:
            return None
        low, high = self.range
        return f"{what}; they lie between {low:.4g} and {high:.4g}, which n = {largest_n(wish, low, high)} holds"


def largest_n(wish: TypeWish, low: float, high: float) -> int:
    """The most fraction bits with which codes of this kind hold all numbers of a range."""
    for n in range(125, -112, -1):
        least, most = FixedPoint(wish.bits, n, wish.signed).bounds
        half = 2.0**-n / 2
        if (least - half <= low or not wish.signed) and high < most + half:
            return n
    return -112


@dataclass(frozen=True)
class VariableReport:
    """A row for each variable."""

    rows: tuple[VariableRow, ...]

    def __str__(self) -> str:
        columns = ("variable", "kind", "shape", "wish", "type", "position", "bytes", "saturated", "SQNR dB")
        rows = [
            (
                row.variable.name,
                row.variable.kind,
                "x".join(map(str, row.variable.shape)) or "scalar",
                row.wish,
                row.variable.type,
                position_text(row.format),
                count(row.bytes),
                share_text(row.saturated),
                decibels_text(row.sqnr_db),
            )
            for row in self.rows
        ]
        return render_table(columns, rows, text_columns=6)

    def placed(self, wishes: Mapping[str, TypeWish]) -> dict[str, str]:
        """The types that were found, of those variables whose wish left it open."""
        return {
            row.variable.name: row.variable.type
            for row in self.rows
            if row.variable.name in wishes and wishes[row.variable.name].format is None
        }


def report_variables(
    network: QuantizedNetwork, wishes: Mapping[str, TypeWish], batches: Iterable[Example]
) -> VariableReport:
    """The report, with figures over some inputs: values as they are computed of what was rounded before them."""
    graph = network.example_graph
    formats = {name: network.format_of(name) or graph.types[name].format for name in graph.types}
    variables = variables_of(graph, network.format_of)
    # A position that is given for all channels has figures that positions by channel have not.
    given = {name: wish.format for name, wish in wishes.items() if wish.n is not None}
    seen = {variable.name: Rounding(given.get(variable.name) or formats[variable.name]) for variable in variables}
    with torch.no_grad():
        for batch in batches:
            for name, value in network.watch(batch):
                if name in seen:
                    seen[name].update(value, _rounded(network, name, value))
        for variable in variables:
            if variable.kind == "parameter" and formats[variable.name] != FLOAT32:
                value = network.weight(variable.name)
                seen[variable.name].update(value, _rounded(network, variable.name, value))
    rows = [_row(variable, wishes, formats[variable.name], seen[variable.name]) for variable in variables]
    return VariableReport(tuple(rows))


def _row(variable: Variable, wishes: Mapping[str, TypeWish], format_: NumberFormat, rounding: Rounding) -> VariableRow:
    wish = wishes.get(variable.name)
    return VariableRow(
        variable=variable,
        wish="" if wish is None else str(wish),
        format=format_,
        bytes=format_.storage_bytes(variable.shape),
        range=rounding.range,
        saturated=rounding.saturated if isinstance(format_, CodeFormat) else None,
        sqnr_db=rounding.sqnr_db,
    )


def _rounded(network: QuantizedNetwork, name: str, value: torch.Tensor) -> torch.Tensor:
    quantizer = network.quantizer(name)
    rounded: torch.Tensor = value if quantizer is None else quantizer(value)
    return rounded
