"""Reductions over the rows of a matrix, in vectors: shared by softmax, layer_norm and reduce."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import halide as hl

# Vectors of a row that are gathered before their result is gathered with that of others.
_BLOCK = 64


@dataclass(frozen=True)
class RowReduction:
    """A function of the row, and the stages that it is computed in.

    Attributes:
        result: result[row].
        partial: partial[lane, row]: what each lane gathers, from blocks, then from whole vectors, then from the rest of
            the row.
        loops: the loops of its updates.
        block: block[lane, number, row]: what each lane gathers from one block of a long row.
        rest: the loop over the rest, if there is one.
        halves: each gathers the upper and the lower half of the lanes before it; the last has one lane.
    """

    result: hl.Func
    partial: hl.Func
    loops: tuple[hl.RVar, ...]
    block: hl.Func | None
    rest: hl.RVar | None
    halves: tuple[hl.Func, ...]

    def compute_at(self, consumer: hl.Func, row: hl.Var, lanes: int) -> None:
        """Compute for each row of `consumer`, with all stages in registers or on the stack."""
        for number, half in enumerate(self.halves):
            lane = half.args()[0]
            half.compute_at(consumer, row).bound(lane, 0, lanes >> number + 1).vectorize(lane)
        lane = self.partial.args()[0]
        self.partial.compute_at(consumer, row).bound(lane, 0, lanes).vectorize(lane)
        for number, loop in enumerate(self.loops):
            self.partial.update(number).vectorize(self.rest if loop is self.rest else lane)
        if self.block is not None:
            self.block.compute_at(self.partial, self.loops[0]).vectorize(lane)
            self.block.update().vectorize(lane)


def reduce_rows(
    name: str,
    size: int,
    lanes: int,
    value: Callable[[hl.Expr, hl.Var], hl.Expr],
    combine: Callable[[hl.Expr, hl.Expr], hl.Expr],
    start: float,
) -> RowReduction:
    """Combine value(k, row) for k = 0 .. size - 1.

    Each lane gathers every `lanes`-th element, in blocks of 64; then one half of the lanes gathers the other, until one
    is left. So a sum has an error of about 64 + size / (64 lanes) roundings, and not of `size`.
    """
    lane, row = hl.Var("lane"), hl.Var("row")
    partial, block, rest = hl.Func(f"{name}_partial"), None, None
    loops: list[hl.RVar] = []
    partial[lane, row] = hl.f32(start)
    blocks, vectors = divmod(size // lanes, _BLOCK)
    if blocks:
        number, block = hl.Var("number"), hl.Func(f"{name}_block")
        inner = hl.RDom([(0, _BLOCK)], f"{name}_inner").x
        loops.append(hl.RDom([(0, blocks)], f"{name}_blocks").x)
        block[lane, number, row] = hl.f32(start)
        term = value(lanes * (number * _BLOCK + inner) + lane, row)
        block[lane, number, row] = combine(hl.Expr(block[lane, number, row]), term)
        partial[lane, row] = combine(hl.Expr(partial[lane, row]), hl.Expr(block[lane, loops[-1], row]))
    if vectors:
        loops.append(hl.RDom([(blocks * _BLOCK, vectors)], f"{name}_vectors").x)
        partial[lane, row] = combine(hl.Expr(partial[lane, row]), value(lanes * loops[-1] + lane, row))
    if size % lanes:
        rest = hl.RDom([(0, size % lanes)], f"{name}_rest").x
        loops.append(rest)
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
    return RowReduction(result, partial, tuple(loops), block, rest, tuple(halves))
