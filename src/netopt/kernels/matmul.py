"""Matrix products of computed tensors, each operand read where it lies, as a view of its memory.

The second operand is packed into a panel of a few vectors of columns for each turn of the loop over columns, and a
register tile of rows x vectors runs down it, as in dense.py. Few rows are not worth that: they read it in place.

Seen on one core of an AMD EPYC (Zen 5, AVX-512), three heads of 197 tokens in 64 dimensions, beside torch.bmm of
PyTorch 2.13 on contiguous operands in the same run:

    product                            schedule            rate             torch.bmm
    q k^T, cut from (197, 576)         rows=11 vectors=2    95 GMAC/s        46 GMAC/s
    softmax v, v cut from (197, 576)   rows=6 vectors=4    121 GMAC/s        52 GMAC/s
    512 x 512 x 512                    rows=6 vectors=4    122 GMAC/s        55 GMAC/s
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import OnePipeline, Pipeline, Problem, Schedule, fix_output, whole_input
from netopt.kernels.parts.product import Floats
from netopt.kernels.parts.tile import Band, TileSchedule, share_tiles
from netopt.kernels.parts.tile_sum import TileSum
from netopt.numerics import Shape
from netopt.ops import Matmul

# A panel of this size or less is on the stack of its thread.
_STACK_BYTES = 128 * 1024


@dataclass(frozen=True)
class MatmulSchedule(Schedule):
    """A register tile.

    Attributes:
        rows: rows of the first operand in a tile.
        vectors: vectors of columns in a tile.
        unroll: steps along the sum in one turn of the loop.
        packed: whether the second operand is packed.
    """

    rows: int
    vectors: int
    unroll: int = 1
    packed: bool = True


@dataclass(frozen=True)
class _Operand:
    """Where an element lies: offset + batch indices x `batch` + row x `row` + column x `column`."""

    offset: int
    batch: tuple[int, ...]
    row: int
    column: int

    def at(self, batch: Sequence[hl.Expr], row: hl.Expr, column: hl.Expr) -> hl.Expr:
        index = hl.Expr(self.offset)
        for position, stride in zip((*batch, row, column), (*self.batch, self.row, self.column), strict=True):
            if stride:
                index += position * stride
        return index


@dataclass(frozen=True)
class _Size:
    """The products: for each index of `batch`, (rows, inputs) by (inputs, columns)."""

    batch: Shape
    rows: int
    inputs: int
    columns: int

    @classmethod
    def of(cls, problem: Problem[Matmul]) -> _Size:
        *batch, rows, columns = problem.op.product_shape(problem.inputs)
        inputs = problem.op.views(problem.inputs)[0].shape[-1]
        return cls(tuple(batch), columns, inputs, rows) if _flips(problem) else cls(tuple(batch), rows, inputs, columns)


def _flips(problem: Problem[Matmul]) -> bool:
    """Whether z^T = y^T x^T is computed: a product that is one column is a row then, in whole vectors."""
    return problem.op.product_shape(problem.inputs)[-1] == 1


def _operands(problem: Problem[Matmul]) -> list[_Operand]:
    """What is multiplied, in order: x and y, or their transposes the other way round."""
    rank = len(_Size.of(problem).batch)
    result = []
    for view in problem.op.views(problem.inputs):
        *batch, row, column = (
            0 if size == 1 else stride for size, stride in zip(view.shape, view.strides, strict=True)
        )
        result.append(_Operand(view.offset, (0,) * (rank - len(batch)) + tuple(batch), row, column))
    if _flips(problem):
        return [_Operand(o.offset, o.batch, o.column, o.row) for o in reversed(result)]
    return result


# --- schedules


def _tiles(size: _Size, cpu: Cpu) -> list[tuple[int, int]]:
    """Tiles (rows, vectors) that fit the registers, the most promising first."""
    widest = -(-size.columns // cpu.lanes)
    tiles = []
    for vectors in range(1, min(6, widest) + 1):
        most = min(size.rows, (cpu.registers - 1 - vectors) // vectors)
        tiles += [(height, vectors) for height in range(1, most + 1)]
    return sorted(tiles, key=lambda tile: (_cost(size, tile, cpu), tile))


def _cost(size: _Size, tile: tuple[int, int], cpu: Cpu) -> float:
    """As `tile._cost`; the last tile of rows overlaps the one before it."""
    height, vectors = tile
    tiles = -(-size.columns // (vectors * cpu.lanes)) * -(-size.rows // height)
    return tiles * (max(height * vectors / 2, 4.0) + vectors / 2 + height / 4)


class MatmulKernel(OnePipeline[Matmul, MatmulSchedule]):
    """See the module's docstring for the rates."""

    op = Matmul

    def schedules(self, problem: Problem[Matmul], cpu: Cpu) -> Sequence[MatmulSchedule]:
        size = _Size.of(problem)
        return [
            MatmulSchedule(rows, vectors, unroll, size.rows > 2 * rows)
            for unroll in (1, 2)
            for rows, vectors in _tiles(size, cpu)[:8]
        ]

    def argument_shapes(self, problem: Problem[Matmul], schedule: MatmulSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        return (*((type_.elements,) for type_ in problem.inputs), problem.output.shape)

    def build(self, problem: Problem[Matmul], schedule: MatmulSchedule, cpu: Cpu) -> Pipeline:
        # --- algorithm
        size, (first, second) = _Size.of(problem), _operands(problem)
        params = tuple(whole_input(name, (type_.elements,)) for name, type_ in zip("xy", problem.inputs, strict=True))
        x, y = reversed(params) if _flips(problem) else params
        n, m, k = hl.Var("n"), hl.Var("m"), hl.Var("k")
        batch = [hl.Var(f"b{axis}") for axis in range(len(size.batch))]
        packed, out = hl.Func("packed"), hl.Func("out")
        # The columns of the last tile that are not there read the last one that is. Likely, so that the loop over
        # tiles is split in two: one that knows nothing of it, and the last tile.
        column = hl.min(hl.likely(n), size.columns - 1)
        packed[[n, k, *batch]] = y[second.at(batch, k, column)]
        tile = TileSchedule(schedule.rows, schedule.vectors, schedule.vectors, schedule.unroll)
        product = TileSum(
            "",
            batch,
            [size.inputs],
            tile,
            Floats(cpu.lanes),
            lambda n, *batch: hl.f32(0.0),
            lambda n, m, batch, k: packed[[n, k[0], *batch]] * x[first.at(batch, m, k[0])],
        )
        by_axis = [*batch, n, m] if _flips(problem) else [*batch, m, n]
        order = problem.op.axes or range(len(by_axis))
        total = product.total[[n, m, *batch]]
        out[[by_axis[axis] for axis in reversed(order)]] = (
            total if problem.op.scale == 1.0 else total * hl.f32(problem.op.scale)
        )
        # --- schedule
        width = schedule.vectors * cpu.lanes
        n_out, n_in, m_out, m_in = hl.Var("n_out"), hl.Var("n_in"), hl.Var("m_out"), hl.Var("m_in")
        out.split(n, n_out, n_in, width, hl.TailStrategy.GuardWithIf)
        out.split(m, m_out, m_in, schedule.rows, hl.TailStrategy.ShiftInwards)
        out.reorder(n_in, m_in, m_out, n_out, *batch[::-1]).vectorize(n_in, cpu.lanes).unroll(m_in)
        self._share(out, n_out, batch, size, width, problem.threads)
        product.schedule(out, m_out, Band(0, size.rows, schedule.rows, schedule.rows))
        if schedule.packed:
            packed.compute_at(out, n_out).bound_extent(n, width).align_bounds(n, width)
            packed.vectorize(n, cpu.lanes)
            if size.inputs * width * 4 <= _STACK_BYTES:
                packed.store_in(hl.MemoryType.Stack)
        fix_output(out, problem.output.shape)
        return Pipeline(out, params)

    def _share(self, out: hl.Func, n_out: hl.Var, batch: list[hl.Var], size: _Size, width: int, threads: int) -> None:
        """Give each thread one run of matrices, or of tiles of columns, where that pays."""
        matrices, tiles = math.prod(size.batch), -(-size.columns // width)
        work = matrices * size.rows * size.columns * size.inputs
        if matrices < threads:
            share_tiles(out, n_out, tiles, work, threads)
            return
        loop = batch[-1] if batch else n_out
        for number, axis in enumerate(reversed(batch[:-1])):
            fused = hl.Var(f"fused{number}")
            out.fuse(loop, axis, fused)
            loop = fused
        share_tiles(out, loop, matrices, work, threads)
