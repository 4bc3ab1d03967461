"""Reductions over the rows of a matrix, in vectors, as softmax, layer_norm and reduce have; how sums are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import halide as hl

# Values that are combined in a tree, which the compiler can do side by side, before their result is gathered.
_TREE = 8


def tree(combine: Callable[[hl.Expr, hl.Expr], hl.Expr], values: Sequence[hl.Expr]) -> hl.Expr:
    """All values combined, neighbours first."""
    values = list(values)
    while len(values) > 1:
        pairs = [combine(a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


def add(a: hl.Expr, b: hl.Expr) -> hl.Expr:
    """a + b where the order of additions matters: Halide would make a chain of a tree."""
    return hl.strict_float(a + b)


@dataclass(frozen=True)
class Reduction:
    """How values become one.

    Attributes:
        combine: of two one.
        start: what to begin with.
        type: of what is gathered from trees of values.
    """

    combine: Callable[[hl.Expr, hl.Expr], hl.Expr]
    start: float
    type: hl.Type

    def of(self, values: Sequence[hl.Expr]) -> hl.Expr:
        """Those of one tree, as they are gathered."""
        return hl.cast(self.type, tree(self.combine, values))

    def begin(self) -> hl.Expr:
        """What to begin with, as it is gathered."""
        return hl.cast(self.type, hl.f32(self.start))


# A sum loses three roundings to float32, those of a tree, however long it is. Equal numbers lose nothing.
SUM = Reduction(add, 0.0, hl.Float(64))
# A short one loses a rounding or so for each tree of a lane; it is faster.
SHORT_SUM = Reduction(add, 0.0, hl.Float(32))


def row_sum(size: int, lanes: int) -> Reduction:
    """How to sum `size` numbers of one lane each: short where a lane has up to eight trees."""
    return SHORT_SUM if size <= _TREE * _TREE * lanes else SUM


@dataclass(frozen=True)
class RowReduction:
    """A function of the row, and the stages that it is computed in.

    Attributes:
        result: result[row], of the reduction's type.
        partial: partial[lane, row]: what each lane gathers, from trees, then from single vectors, then from the rest of
            the row.
        loops: the loops of its updates.
        rest: the loop over the rest, if there is one.
        halves: each gathers the upper and the lower half of the lanes before it; the last has one lane.
    """

    result: hl.Func
    partial: hl.Func
    loops: tuple[hl.RVar, ...]
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


def reduce_rows(
    name: str, size: int, lanes: int, value: Callable[[hl.Expr, hl.Var], hl.Expr], reduction: Reduction
) -> RowReduction:
    """Combine value(k, row) for k = 0 .. size - 1.

    Each lane gathers every `lanes`-th element, eight at a time in a tree; then one half of the lanes gathers the other,
    until one is left.
    """
    lane, row = hl.Var("lane"), hl.Var("row")
    partial, rest = hl.Func(f"{name}_partial"), None
    vectors = size // lanes
    loops = gather(partial, (lane, row), vectors, lambda k: value(lanes * k + lane, row), reduction)
    if size % lanes:
        rest = hl.RDom([(0, size % lanes)], f"{name}_rest").x
        loops.append(rest)
        last = reduction.of([value(vectors * lanes + rest, row)])
        partial[rest, row] = reduction.combine(hl.Expr(partial[rest, row]), last)
    halves: list[hl.Func] = []
    source, width = partial, lanes
    while width > 1:
        width //= 2
        half = hl.Func(f"{name}_half{width}")
        half[lane, row] = reduction.combine(hl.Expr(source[lane, row]), hl.Expr(source[lane + width, row]))
        halves.append(half)
        source = half
    result = hl.Func(name)
    result[row] = source[0, row]
    return RowReduction(result, partial, tuple(loops), rest, tuple(halves))


def gather(
    func: hl.Func, at: Sequence[hl.Expr], size: int, value: Callable[[hl.Expr], hl.Expr], reduction: Reduction
) -> list[hl.RVar]:
    """Define func[at] as value(k) for k = 0 .. size - 1 combined, eight at a time in a tree.

    Returns:
        The loops of its updates, in order.
    """
    at = list(at)
    trees, rest = divmod(size, _TREE)
    loops: list[hl.RVar] = []
    if trees == 1:
        trees, rest = 0, size
    # Powers of two, so that what equal numbers make is exact in all of them.
    written = [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]
    parts, k = [], hl.Expr(trees * _TREE)
    for count in written:
        parts.append(reduction.of([value(k + j) for j in range(count)]))
        k += count
    func[at] = tree(reduction.combine, parts) if parts else reduction.begin()
    if trees:
        number = hl.RDom([(0, trees)], f"{func.name()}_trees").x
        loops.append(number)
        eight = reduction.of([value(_TREE * number + j) for j in range(_TREE)])
        func[at] = reduction.combine(hl.Expr(func[at]), eight)
    return loops
