"""Register tiles that dense layers and convolutions share: which there are, what they cost, and how threads share them.

A tile is `rows` positions (rows of a matrix, pixels of a line) x `vectors` vectors of outputs. Weights are packed into
panels of a few vectors of outputs (panels.py), and the tile's sums are those of tile_sum.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Schedule

# Accumulators that wait in the first-level cache while the inputs go by in blocks: rows of them at most.
_ROWS_IN_CACHE = 48
# Multiply-adds below which a thread's share is not worth waking it for.
_SMALLEST_SHARE = 100_000


@dataclass(frozen=True)
class TileSchedule(Schedule):
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
class Band:
    """Rows that are computed alike: `block` rows share a block of accumulators, and are computed in tiles of `tile`."""

    start: int
    rows: int
    block: int
    tile: int


def bands_of(rows: int, s: TileSchedule) -> list[Band]:
    """Cut the rows into bands without remainders.

    Each row is written once, so that the output may take the place of the residual.
    """
    tile = min(s.rows, rows)
    block = tile if s.blocks == 1 else max(tile, min(rows, _ROWS_IN_CACHE) // tile * tile)
    whole = rows // block * block
    tiles = (rows - whole) // tile * tile
    rest = rows - whole - tiles
    parts = [Band(0, whole, block, tile), Band(whole, tiles, tiles, tile), Band(whole + tiles, rest, rest, rest)]
    return [band for band in parts if band.rows]


def tile_schedules(rows: int, outputs: int, cpu: Cpu) -> list[TileSchedule]:
    """Schedules worth measuring for tiles of a matrix of this size: the five most promising tiles, in two panels."""
    return [
        TileSchedule(height, vectors, panel, unroll)
        for unroll in (1, 2)
        for height, vectors in tiles_by_cost(rows, outputs, cpu)[:5]
        for panel in dict.fromkeys((vectors, 1))
    ]


def tiles_by_cost(rows: int, outputs: int, cpu: Cpu) -> list[tuple[int, int]]:
    """Tiles (rows, vectors) that fit the registers, for a matrix of this size, the most promising first."""
    return [tile for tile, _ in tile_costs(rows, outputs, cpu)]


def tile_costs(rows: int, outputs: int, cpu: Cpu) -> list[tuple[tuple[int, int], float]]:
    """The tiles of `tiles_by_cost`, each with its cost."""
    widest = -(-outputs // cpu.lanes)
    costs = {}
    for vectors in range(1, min(6, widest) + 1):
        # Accumulators, one vector of weights each, and one broadcast input.
        most = min(rows, (cpu.registers - 1 - vectors) // vectors)
        for height in range(1, most + 1):
            costs[height, vectors] = tile_cost(rows, outputs, (height, vectors), cpu)
    return sorted(costs.items(), key=lambda item: (item[1], item[0]))


def tile_cost(rows: int, outputs: int, tile: tuple[int, int], cpu: Cpu) -> float:
    """Relative cost of a register tile, for a matrix of this size.

    A core does two multiply-adds a cycle, and a sum waits four cycles for its last term. Fitted to the rates in
    dense.py and conv2d.py; it orders the schedules measured there as they came out.
    """
    height, vectors = tile
    tiles_across = -(-outputs // (vectors * cpu.lanes))
    return tiles_across * sum(
        band.rows // band.tile * _cycles(band.tile, vectors, cpu)
        for band in bands_of(rows, TileSchedule(height, vectors, 1))
    )


def is_avx512(cpu: Cpu) -> bool:
    """Whether it has the registers of AVX-512, which the costs of tiles and rules of schedules were measured with."""
    return cpu.lanes == 16 and cpu.registers == 32


def _cycles(height: int, vectors: int, cpu: Cpu) -> float:
    """Cycles for one step of a tile along the inputs."""
    if not is_avx512(cpu):
        # A vector of weights costs half a cycle, a broadcast input a quarter.
        return max(height * vectors / 2, 4.0) + vectors / 2 + height / 4
    # Zen 5: two loads a cycle go beside the multiply-adds, and cost little until there are more of them.
    return max(height * vectors / 2, (height + vectors) / 2, 4.0) + vectors / 10 + height / 20


def share_tiles(stage: hl.Stage | hl.Func, tile: hl.Var | hl.RVar, tiles: int, work: int, threads: int) -> None:
    """Give each thread one run of the loop over `tiles` tiles of outputs, where `work` multiply-adds are worth it."""
    if threads > 1 and tiles > 1 and work >= _SMALLEST_SHARE * threads:
        chunk = hl.RVar("chunk") if isinstance(tile, hl.RVar) else hl.Var("chunk")
        stage.split(tile, chunk, tile, -(-tiles // threads), hl.TailStrategy.GuardWithIf).parallel(chunk)


def share_evenly(
    stage: hl.Stage,
    loops: Sequence[tuple[hl.Var | hl.RVar, int]],
    order: Sequence[hl.Var | hl.RVar],
    work: int,
    threads: int,
) -> None:
    """Give each thread one run of the loop that splits the most evenly, the first of equals.

    Args:
        stage: whose loops these are.
        loops: loops of the stage and their extents.
        order: all its loops, innermost first; the split one goes around them all.
        work: multiply-adds; each thread must get enough to be worth waking it.
        threads: the most threads.
    """
    tile, count = max(loops, key=lambda loop: loop[1] / (-(-loop[1] // threads) * threads))
    if threads > 1 and count > 1 and work >= _SMALLEST_SHARE * threads:
        chunk = hl.RVar("chunk") if isinstance(tile, hl.RVar) else hl.Var("chunk")
        stage.split(tile, chunk, tile, -(-count // threads), hl.TailStrategy.GuardWithIf)
        # Every element is written once; of tiles of several lines Halide does not see that.
        stage.reorder(*order, chunk).allow_race_conditions().parallel(chunk)
