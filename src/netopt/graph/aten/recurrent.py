"""LSTM, GRU and plain recurrent layers: all input products of a layer in one, then a recurrence for each direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from netopt.errors import UnsupportedModel
from netopt.graph.aten.context import Context, Imported, Importer
from netopt.graph.aten.shapes import part
from netopt.ops import Concat, Dense, Permute, Recurrent, Reshape
from netopt.ops.recurrent import GATES


@dataclass(frozen=True)
class _Weights:
    """Of one direction of a layer: (gates x hidden, inputs), (gates x hidden, hidden) and the biases, if any."""

    given: torch.Tensor
    hidden: torch.Tensor
    biases: tuple[torch.Tensor, ...]

    def added_bias(self, cell: str) -> torch.Tensor:
        """What is added to the input products: both biases, but for that of a GRU's new gate that it multiplies."""
        if not self.biases:
            return torch.zeros(len(self.given))
        own = self.biases[1].clone()
        if cell == "gru":
            own[2 * self.hidden.shape[1] :] = 0.0
        return (self.biases[0].double() + own.double()).float()

    def new_gate_bias(self) -> torch.Tensor:
        size = self.hidden.shape[1]
        return self.biases[1][2 * size :] if self.biases else torch.zeros(size)


def _known(context: Context, names: Sequence[str | None]) -> list[torch.Tensor]:
    values = [context.builder.constants.get(name) for name in names if name is not None]
    if any(value is None for value in values):
        raise UnsupportedModel("a recurrent layer whose weight is computed from the input", layer=context.layer)
    return [value for value in values if value is not None]


def _directions(context: Context, params: Sequence[str], cell: str, biases: bool) -> list[_Weights]:
    """The weights of each direction of each layer, in PyTorch's order."""
    values = _known(context, params)
    number = 4 if biases else 2
    hidden = values[1].shape[1]
    if values[1].shape[0] != GATES[cell] * hidden or any(value.shape[0] != GATES[cell] * hidden for value in values):
        raise UnsupportedModel(
            "an LSTM with proj_size", layer=context.layer, fix="put a linear layer behind one without"
        )
    groups = [values[at : at + number] for at in range(0, len(values), number)]
    return [_Weights(group[0], group[1], tuple(group[2:])) for group in groups]


def _layer(
    context: Context, cell: str, x: str, weights: Sequence[_Weights], states: Sequence[str], cells: Sequence[str]
) -> tuple[str, list[str], list[str]]:
    """One layer of x (time, batch, inputs): its output, and the last states of each direction."""
    time, batch, _ = context.shape(x)
    hidden = weights[0].hidden.shape[1]
    matrix = _constant(context, "input_weight", torch.cat([each.given for each in weights]))
    bias = _constant(context, "input_bias", torch.cat([each.added_bias(cell) for each in weights]))
    given = context.add(Dense(has_bias=True), x, matrix, bias)
    outputs, last, last_cells = [], [], []
    for number, each in enumerate(weights):
        op = Recurrent(cell, reverse=number == 1, first=number * GATES[cell] * hidden)
        recurrent = _constant(context, "hidden_weight", each.hidden)
        own = {"lstm": [cells[number]] if cells else [], "gru": [_constant(context, "new_bias", each.new_gate_bias())]}
        y = context.add(op, given, recurrent, states[number], *own.get(cell, []))
        if cell == "lstm":
            last_cells.append(context.add(Reshape((batch, hidden)), part(context, y, 0, time, time + 1)))
            y = part(context, y, 0, 0, time)
        end = 0 if op.reverse else time - 1
        last.append(context.add(Reshape((batch, hidden)), part(context, y, 0, end, end + 1)))
        outputs.append(y)
    return outputs[0] if len(outputs) == 1 else context.add(Concat(2), *outputs), last, last_cells


def _constant(context: Context, role: str, value: torch.Tensor) -> str:
    return context.builder.add_constant(f"{context.wish}_{role}", value)


def _rows(context: Context, states: str) -> list[str]:
    """(layers x directions, batch, hidden) as that many of (batch, hidden)."""
    count, *shape = context.shape(states)
    return [context.add(Reshape(tuple(shape)), part(context, states, 0, i, i + 1)) for i in range(count)]


def _stacked(context: Context, states: Sequence[str]) -> str:
    rows = [context.add(Reshape((1, *context.shape(each))), each) for each in states]
    return rows[0] if len(rows) == 1 else context.add(Concat(0), *rows)


def _exchanged(context: Context, x: str) -> str:
    """Batch and time exchanged."""
    first, second, size = context.shape(x)
    if 1 in (first, second):
        return context.add(Reshape((second, first, size)), x)
    return context.add(Permute((1, 0, 2)), x)


def _network(cell: str) -> Importer:
    """All layers, one after the other."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        if args["train"] and args["dropout"] > 0:
            raise UnsupportedModel("dropout that is active in eval mode", layer=context.layer)
        states = args["hx"] if isinstance(args["hx"], list) else [args["hx"]]
        rows = [_rows(context, each) for each in states]
        directions = 2 if args["bidirectional"] else 1
        weights = _directions(context, args["params"], cell, args["has_biases"])
        x = _exchanged(context, args["input"]) if args["batch_first"] else args["input"]
        last: list[str] = []
        cells: list[str] = []
        for first in range(0, len(weights), directions):
            own = [each[first : first + directions] for each in rows]
            x, ends, cell_ends = _layer(
                context, cell, x, weights[first : first + directions], own[0], own[1] if len(own) > 1 else []
            )
            last += ends
            cells += cell_ends
        y = _exchanged(context, x) if args["batch_first"] else x
        results = (y, _stacked(context, last))
        return (*results, _stacked(context, cells)) if cell == "lstm" else results

    return importer


def _cell(cell: str) -> Importer:
    """One time step of one layer."""

    def importer(context: Context, args: dict[str, Any]) -> Imported:
        states = args["hx"] if isinstance(args["hx"], list) else [args["hx"]]
        names = [args["w_ih"], args["w_hh"], args["b_ih"], args["b_hh"]]
        weights = _directions(context, [name for name in names if name is not None], cell, args["b_ih"] is not None)
        x = context.add(Reshape((1, *context.shape(args["input"]))), args["input"])
        y, _, cells = _layer(context, cell, x, weights, states[:1], states[1:])
        hidden = context.add(Reshape(context.shape(states[0])), y)
        return (hidden, cells[0]) if cell == "lstm" else hidden

    return importer


IMPORTERS: dict[str, Importer] = {
    "lstm.input": _network("lstm"),
    "gru.input": _network("gru"),
    "rnn_tanh.input": _network("rnn_tanh"),
    "rnn_relu.input": _network("rnn_relu"),
    "lstm_cell.default": _cell("lstm"),
    "gru_cell.default": _cell("gru"),
    "rnn_tanh_cell.default": _cell("rnn_tanh"),
    "rnn_relu_cell.default": _cell("rnn_relu"),
}
