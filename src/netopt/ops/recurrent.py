"""Recurrent: one layer of an LSTM, GRU or plain recurrent network, in one direction, after its input products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.ops.op import Op, TensorType, expect_inputs

# For each cell how many parts of the hidden size its weights have, in PyTorch's order.
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Recurrent(Op):
    """Hidden states of all time steps, (time, batch, hidden); of an LSTM one more row, which is the last cell state.

    Inputs: what the inputs and biases give to the gates, (time, batch, columns), of which this layer reads
    `gates x hidden` from column `first` on; the recurrent weight (gates x hidden, hidden), a constant; the first hidden
    state (batch, hidden); then of an LSTM the first cell state, and of a GRU the bias of its new gate's product with
    the hidden state, (hidden).

    Source: Hochreiter and Schmidhuber, Long Short-Term Memory, 1997; Cho et al., 1406.1078; the gates as PyTorch
    computes them.

    Attributes:
        cell: a key of `GATES`.
        reverse: from the last time step to the first. The states lie at the places of their inputs all the same.
        first: column.
    """

    cell: str
    reverse: bool = False
    first: int = 0
    name: ClassVar[str] = "recurrent"

    def __post_init__(self) -> None:
        if self.cell not in GATES:
            raise InvalidArgument("cell", expected=f"one of {', '.join(GATES)}", found=self.cell)

    @property
    def label(self) -> str:
        return f"{self.cell} backwards" if self.reverse else self.cell

    @property
    def gates(self) -> int:
        """Parts of the hidden size that its weight has."""
        return GATES[self.cell]

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 4 if self.cell in ("lstm", "gru") else 3)
        given, weight, hidden, *rest = (type_.shape for type_ in inputs)
        size = weight[-1] if len(weight) == 2 else 0
        fits = (
            len(given) == 3
            and min(*given, size) > 0
            and weight == (self.gates * size, size)
            and hidden == (given[1], size)
            and 0 <= self.first <= given[2] - self.gates * size
            and rest == [(given[1], size)] * (self.cell == "lstm") + [(size,)] * (self.cell == "gru")
        )
        if not fits:
            expected = "(time, batch, columns), (gates x hidden, hidden), (batch, hidden) and the cell's own"
            raise InvalidArgument(f"shapes of {self.label}", expected=expected, found=[type_.shape for type_ in inputs])
        return TensorType((given[0] + (self.cell == "lstm"), given[1], size))

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        given, weight, hidden = inputs[:3]
        own = inputs[3] if len(inputs) > 3 else hidden
        columns = given[..., self.first : self.first + weight.shape[0]]
        states = [hidden] * len(columns)
        for at in reversed(range(len(columns))) if self.reverse else range(len(columns)):
            hidden, own = self._step(columns[at], hidden @ weight.T, hidden, own)
            states[at] = hidden
        return torch.stack([*states, own] if self.cell == "lstm" else states)

    def _step(
        self, given: torch.Tensor, product: torch.Tensor, hidden: torch.Tensor, own: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next hidden state, and the next cell state or what stands in its place."""
        if self.cell == "lstm":
            i, f, g, o = (given + product).chunk(4, 1)
            cell = f.sigmoid() * own + i.sigmoid() * g.tanh()
            return o.sigmoid() * cell.tanh(), cell
        if self.cell == "gru":
            (r, z, n), (pr, pz, pn) = given.chunk(3, 1), product.chunk(3, 1)
            new = (n + (r + pr).sigmoid() * (pn + own)).tanh()
            update = (z + pz).sigmoid()
            return new + update * (hidden - new), own
        total = given + product
        return (total.tanh() if self.cell == "rnn_tanh" else total.relu()), own

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        steps, batch, _ = inputs[0].shape
        return steps * batch * inputs[1].elements

    def constant_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (1,)
