"""Reductions over the rows of a matrix, in vectors: shared by softmax and layer_norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import halide as hl


@dataclass(frozen=True)
class RowReduction:
    """A function of the row, and the stages that it is computed in.

    Attributes:
        result: result[row].
        partial: partial[lane, row]: what each lane gathers, over the whole vectors of the row; None if there are none.
    """

    result: hl.Func
    partial: hl.Func | None

    def compute_at(self, consumer: hl.Func, row: hl.Var, lanes: int) -> None:
        """Compute for each row of `consumer`, with both stages in registers or on the stack."""
        self.result.compute_at(consumer, row)
        if self.partial is None:
            return
        lane = self.partial.args()[0]
        self.partial.compute_at(consumer, row).vectorize(lane, lanes)
        self.partial.update().vectorize(lane, lanes)


def reduce_rows(
    name: str,
    size: int,
    lanes: int,
    value: Callable[[hl.Expr, hl.Var], hl.Expr],
    combine: Callable[[hl.Expr, hl.Expr], hl.Expr],
    start: float,
) -> RowReduction:
    """Combine value(k, row) for k = 0 .. size - 1.

    Each lane gathers every `lanes`-th element of the whole vectors; then the lanes, then the elements left over, are
    gathered one by one.
    """
    lane, row = hl.Var("lane"), hl.Var("row")
    whole = size // lanes
    partial, result = None, hl.Func(name)
    result[row] = hl.f32(start)
    if whole:
        partial = hl.Func(f"{name}_partial")
        vectors = hl.RDom([(0, whole)], f"{name}_vectors")
        partial[lane, row] = hl.f32(start)
        partial[lane, row] = combine(hl.Expr(partial[lane, row]), value(lanes * vectors.x + lane, row))
        across = hl.RDom([(0, lanes)], f"{name}_lanes")
        result[row] = combine(hl.Expr(result[row]), hl.Expr(partial[across.x, row]))
    if size % lanes:
        rest = hl.RDom([(0, size % lanes)], f"{name}_rest")
        result[row] = combine(hl.Expr(result[row]), value(whole * lanes + rest.x, row))
    return RowReduction(result, partial)
