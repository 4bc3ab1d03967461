"""Dense layers: a matrix product with packed weights, and bias, residual and activation at its end.

Weights are packed into panels of a few vectors of outputs: (outputs / panel, inputs, panel). A register tile of
`rows` inputs x `vectors` vectors of outputs runs down the panels, one multiply-add an element.

Seen on one core of an AMD EPYC (Zen 3, AVX2), times faster than eager PyTorch 2.13 in the same run:

    batch  inputs x outputs  schedule                                     ratio  rate
    1      1024 x 1024       rows=1 vectors=8 panel=8 (one stream)        1.46   28 GB/s
    1      1024 x 1024       rows=1 vectors=8 panel=2 (four streams)      1.97   37 GB/s
    1      4096 x 4096       rows=1 vectors=8 panel=8 (one stream)        0.95   21 GB/s
    1      4096 x 4096       rows=1 vectors=8 panel=1 (eight streams)     1.19   26 GB/s
    32     1024 x 1024       rows=4 vectors=3 panel=1                            43 GMAC/s
    32     4096 x 4096       rows=4 vectors=3 panel=3                            32 GMAC/s
    32     4096 x 4096       rows=4 vectors=3 panel=1                            35 GMAC/s
    32     4096 x 4096       rows=4 vectors=3 panel=1 blocks=4                   38 GMAC/s

A dense layer at batch 1 is bound by reading its weights. A panel narrower than the tile makes the tile read several
panels side by side: several sequential streams, which the hardware prefetchers follow better than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import halide as hl
import numpy as np

from netopt.kernels.cpu import Cpu
from netopt.kernels.kernel import Array, Kernel, Pipeline, Problem, Schedule, fix_output, float_input
from netopt.kernels.pointwise import apply_pointwise
from netopt.numerics import Shape
from netopt.ops import Dense

# Accumulators that wait in the first-level cache while the inputs go by in blocks: rows of them at most.
_ROWS_IN_CACHE = 48
# Multiply-adds below which a thread's share is not worth waking it for.
_SMALLEST_SHARE = 100_000


@dataclass(frozen=True)
class DenseSchedule(Schedule):
    """A register tile and how it moves.

    Attributes:
        rows: rows of the input in a tile.
        vectors: vectors of outputs in a tile.
        panel: vectors of outputs that are packed together; divides `vectors`.
        unroll: steps along the inputs in one turn of the loop.
        blocks: parts that the inputs are cut into, so that a part of a panel stays in the first-level cache while all
            rows use it; divides the number of inputs.
    """

    rows: int
    vectors: int
    panel: int
    unroll: int = 1
    blocks: int = 1


@dataclass(frozen=True)
class _Size:
    """The matrix product: (rows, inputs) by (inputs, outputs)."""

    rows: int
    inputs: int
    outputs: int

    @classmethod
    def of(cls, problem: Problem) -> _Size:
        outputs, inputs = problem.inputs[1].shape
        return cls(problem.output.elements // outputs, inputs, outputs)


@dataclass(frozen=True)
class _Band:
    """Rows that are computed alike: `block` rows share a block of accumulators, and are computed in tiles of `tile`."""

    start: int
    rows: int
    block: int
    tile: int


def _bands(rows: int, s: DenseSchedule) -> list[_Band]:
    """Cut the rows into bands without remainders.

    Each row is written once, so that the output may take the place of the residual.
    """
    tile = min(s.rows, rows)
    block = tile if s.blocks == 1 else max(tile, min(rows, _ROWS_IN_CACHE) // tile * tile)
    whole = rows // block * block
    tiles = (rows - whole) // tile * tile
    rest = rows - whole - tiles
    parts = [_Band(0, whole, block, tile), _Band(whole, tiles, tiles, tile), _Band(whole + tiles, rest, rest, rest)]
    return [band for band in parts if band.rows]


# --- schedules


def _cycles(size: _Size, tile: tuple[int, int], cpu: Cpu) -> float:
    """Relative cost of a register tile.

    A core does two multiply-adds a cycle, a sum waits four cycles for its last term, and loads, which mostly run beside
    the sums, cost a quarter of a cycle each: fitted to the table above.
    """
    rows, vectors = tile
    tiles_across = -(-size.outputs // (vectors * cpu.lanes))
    bands = _bands(size.rows, DenseSchedule(rows, vectors, 1))
    return tiles_across * sum(
        band.rows // band.tile * (max(band.tile * vectors / 2, 4.0) + (band.tile + vectors) / 4) for band in bands
    )


def _tiles(size: _Size, cpu: Cpu) -> list[tuple[int, int]]:
    """Register tiles (rows, vectors) that fit the registers, the most promising first."""
    widest = -(-size.outputs // cpu.lanes)
    if size.rows == 1:
        # Bound by bytes: the fewer of them are padding the better, and then the more streams the better.
        choices = range(1, min(12, widest) + 1)
        return [(1, v) for v in sorted(choices, key=lambda v: (v < 4, v > 8, -(-widest // v) * v, -v))]
    tiles = set()
    for vectors in range(1, min(6, widest) + 1):
        # Accumulators, one vector of weights each, and one broadcast input.
        most = min(size.rows, (cpu.registers - 1 - vectors) // vectors)
        tiles |= {(rows, vectors) for rows in (most, most - 1, -(-size.rows // -(-size.rows // most))) if rows > 0}
    return sorted(tiles, key=lambda tile: (_cycles(size, tile, cpu), tile))


def _cuts(inputs: int) -> list[int]:
    """Numbers of blocks that leave 256 to 1024 inputs in each, if there are any, coarse ones first."""
    return [n for n in range(2, inputs // 256 + 1) if inputs % n == 0 and inputs // n <= 1024][:2]


class DenseKernel(Kernel[DenseSchedule]):
    """See the module's docstring for the rates."""

    op = Dense

    def schedules(self, problem: Problem, cpu: Cpu) -> Sequence[DenseSchedule]:
        size = _Size.of(problem)
        tiles = _tiles(size, cpu)[:6]
        if size.rows == 1:
            return [
                DenseSchedule(rows, vectors, panel, unroll)
                for unroll in (1, 2)
                for rows, vectors in tiles
                for panel in dict.fromkeys((1, 2, vectors))
                if vectors % panel == 0
            ]
        # Rows that share a panel read it again: from the first-level cache, if it is cut to fit there.
        cuts = [*_cuts(size.inputs), 1] if size.rows > 8 and size.inputs > 1024 else [1]
        return [
            DenseSchedule(rows, vectors, panel, unroll, blocks)
            for unroll in (1, 2)
            for rows, vectors in tiles
            for blocks in cuts
            for panel in dict.fromkeys((1, vectors))
        ]

    def argument_shapes(self, problem: Problem, schedule: DenseSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        assert isinstance(problem.op, Dense)
        size = _Size.of(problem)
        tile = schedule.vectors * cpu.lanes
        padded = -(-size.outputs // tile) * tile
        panel = schedule.panel * cpu.lanes
        result: list[Shape] = [(size.rows, size.inputs), (padded // panel, size.inputs, panel)]
        if problem.op.has_bias:
            result.append((padded,))
        if problem.op.has_residual:
            result.append((size.rows, size.outputs))
        return (*result, (size.rows, size.outputs))

    def pack(self, problem: Problem, schedule: DenseSchedule, cpu: Cpu, index: int, value: Array) -> Array:
        shape = self.argument_shapes(problem, schedule, cpu)[index]
        if index == 0 or value.ndim == 0:
            return value.reshape(shape)
        padding = [(0, -value.shape[0] % (schedule.vectors * cpu.lanes))] + [(0, 0)] * (value.ndim - 1)
        padded = np.pad(value, padding)
        if value.ndim == 1:
            return padded
        panels, inputs, panel = shape
        return np.ascontiguousarray(padded.reshape(panels, panel, inputs).transpose(0, 2, 1))

    def unpack(self, problem: Problem, index: int, packed: Array) -> Array:
        shape = problem.inputs[index].shape
        if packed.ndim == 3:
            packed = packed.transpose(0, 2, 1).reshape(-1, packed.shape[1])
        return np.ascontiguousarray(packed[: shape[0]]) if index else packed.reshape(shape)

    def build(self, problem: Problem, schedule: DenseSchedule, cpu: Cpu) -> Pipeline:
        assert isinstance(problem.op, Dense)
        names = ["x", "weight", *["bias"] * problem.op.has_bias, *["residual"] * problem.op.has_residual]
        *shapes, output = self.argument_shapes(problem, schedule, cpu)
        size = _Size.of(problem)
        inputs = {name: float_input(name, shape) for name, shape in zip(names, shapes, strict=True)}
        n, out = hl.Var("n"), hl.Func("out")
        out[n, hl.Var("m")] = hl.undef(hl.Float(32))
        for number, band in enumerate(_bands(output[0], schedule)):
            # --- algorithm
            m = hl.RDom([(band.start, band.rows)], f"band{number}").x
            product = _Product(f"_{number}", inputs, size, schedule, cpu.lanes)
            total = product.total[n, m]
            if problem.op.has_residual:
                total += inputs["residual"][n, m]
            out[n, m] = apply_pointwise(problem.op.activation, total)
            # --- schedule
            tile, lanes = schedule.vectors * cpu.lanes, cpu.lanes
            n_out, n_in, chunk, m_out, m_in = (
                hl.Var("n_out"),
                hl.Var("n_in"),
                hl.Var("chunk"),
                hl.RVar("mo"),
                hl.RVar("mi"),
            )
            stage = out.update(number)
            stage.split(n, n_out, n_in, tile, hl.TailStrategy.GuardWithIf).split(m, m_out, m_in, band.block)
            stage.reorder(n_in, m_in, m_out, n_out).vectorize(n_in, lanes)
            if band.block == band.tile:
                stage.unroll(m_in)
            tiles = -(-output[1] // tile)
            if (
                problem.threads > 1
                and tiles > 1
                and band.rows * shapes[0][1] * output[1] >= _SMALLEST_SHARE * problem.threads
            ):
                stage.split(n_out, chunk, n_out, -(-tiles // problem.threads), hl.TailStrategy.GuardWithIf).parallel(
                    chunk
                )
            product.schedule(out, m_out, band)
        fix_output(out, output)
        return Pipeline(out, tuple(inputs.values()))


class _Product:
    """bias + x W^T for one band, as `total[n, m]`.

    In one block the sum of a register tile stays in registers from the first input to the last. In several, `part` is
    the register tile's sum over one block, and `total`, in the first-level cache, gathers the parts.
    """

    def __init__(
        self, suffix: str, inputs: dict[str, hl.ImageParam], size: _Size, s: DenseSchedule, lanes: int
    ) -> None:
        # --- algorithm
        self.n, self.m, self.block = hl.Var("n"), hl.Var("m"), hl.Var("block")
        self.s, self.lanes = s, lanes
        x, weight, panel = inputs["x"], inputs["weight"], s.panel * lanes
        length = size.inputs // s.blocks
        self.k = hl.RDom([(0, length)], f"k{suffix}").x
        self.blocks = hl.RDom([(0, s.blocks)], f"blocks{suffix}").x
        self.total, self.part = hl.Func(f"total{suffix}"), hl.Func(f"part{suffix}")
        n, m, block = self.n, self.m, self.block
        self.total[n, m] = inputs["bias"][n] if "bias" in inputs else hl.f32(0.0)
        if s.blocks == 1:
            self.total[n, m] += weight[n % panel, self.k, n // panel] * x[self.k, m]
        else:
            k = block * length + self.k
            self.part[n, m, block] = hl.f32(0.0)
            self.part[n, m, block] += weight[n % panel, k, n // panel] * x[k, m]
            self.total[n, m] += self.part[n, m, self.blocks]

    def schedule(self, consumer: hl.Func, rows: hl.RVar, band: _Band) -> None:
        """Compute for each turn of the consumer's loop over `rows`."""
        # --- schedule
        n, m, tile = self.n, self.m, self.s.vectors * self.lanes
        self.total.compute_at(consumer, rows).bound_extent(n, tile).align_bounds(n, tile).vectorize(n, self.lanes)
        self.total.store_in(hl.MemoryType.Stack)
        update = self.total.update()
        if self.s.blocks == 1:
            self.total.unroll(n).unroll(m)
            self._keep_in_registers(update)
            return
        m_out, m_in = hl.Var("m_out"), hl.Var("m_in")
        update.split(m, m_out, m_in, band.tile, hl.TailStrategy.RoundUp).reorder(n, m_in, m_out, self.blocks)
        update.vectorize(n, self.lanes).unroll(n).unroll(m_in)
        self.part.compute_at(self.total, m_out).bound_extent(n, tile).vectorize(n, self.lanes).unroll(n).unroll(m)
        self._keep_in_registers(self.part.update())

    def _keep_in_registers(self, update: hl.Stage) -> None:
        update.reorder(self.n, self.m, self.k).vectorize(self.n, self.lanes).unroll(self.n).unroll(self.m)
        if self.s.unroll > 1:
            update.unroll(self.k, self.s.unroll, hl.TailStrategy.GuardWithIf)
