"""Reductions over the rows of a matrix, in vectors: shared by softmax, layer_norm and reduce."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import halide as hl


@dataclass(frozen=True)
class RowReduction:
    """A function of the row, and the stages that it is computed in.

    Attributes:
        result: result[row].
        partial: partial[lane, row]: what each lane gathers, first from whole vectors, then from the rest of the row.
        rest: the loop over that rest, if there is one.
        halves: each gathers the upper and the lower half of the lanes before it; the last has one lane.
    """

    result: hl.Func
    partial: hl.Func
    rest: hl.RVar | None
    halves: tuple[hl.Func, ...]

    def compute_at(self, consumer: hl.Func, row: hl.Var, lanes: int) -> None:
        """Compute for each row of `consumer`, with all stages in registers or on the stack."""
        for number, half in enumerate(self.halves):
            lane = half.args()[0]
            half.compute_at(consumer, row).bound(lane, 0, lanes >> number + 1).vectorize(lane)
        lane, updates = self.partial.args()[0], self.partial.num_update_definitions()
        self.partial.compute_at(consumer, row).bound(lane, 0, lanes).vectorize(lane)
        if self.rest is not None:
            updates -= 1
            self.partial.update(updates).vectorize(self.rest)
        if updates:
            self.partial.update(0).vectorize(lane)


def reduce_rows(
    name: str,
    size: int,
    lanes: int,
    value: Callable[[hl.Expr, hl.Var], hl.Expr],
    combine: Callable[[hl.Expr, hl.Expr], hl.Expr],
    start: float,
) -> RowReduction:
    """Combine value(k, row) for k = 0 .. size - 1.

    Each lane gathers every `lanes`-th element; then one half of the lanes gathers the other, until one is left. So a
    sum has an error of size / lanes + log2(lanes) roundings, and not of `size`.
    """
    lane, row = hl.Var("lane"), hl.Var("row")
    partial, rest = hl.Func(f"{name}_partial"), None
    partial[lane, row] = hl.f32(start)
    if size >= lanes:
        vectors = hl.RDom([(0, size // lanes)], f"{name}_vectors").x
        partial[lane, row] = combine(hl.Expr(partial[lane, row]), value(lanes * vectors + lane, row))
    if size % lanes:
        rest = hl.RDom([(0, size % lanes)], f"{name}_rest").x
        partial[rest, row] = combine(hl.Expr(partial[rest, row]), value(size // lanes * lanes + rest, row))
    halves: list[hl.Func] = []
    source, width = partial, lanes
    while width > 1:
        width //= 2
        half = hl.Func(f"{name}_half{width}")
        half[lane, row] = combine(hl.Expr(source[lane, row]), hl.Expr(source[lane + width, row]))
        halves.append(half)
        source = half
    result = hl.Func(name)
    result[row] = source[0, row]
    return RowReduction(result, partial, rest, tuple(halves))
