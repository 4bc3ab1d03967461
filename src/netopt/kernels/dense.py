"""Dense layers: a matrix product with packed weights, and bias, residual and activation as its epilogue.

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

Weights with a scale for each group of 64 inputs, seen on one core of an AMD EPYC (Zen 4), times faster than the best of
three schedules of float32 in the same run, which read 26 to 36 GB/s; in processor time, of AVX-512 and of AVX2:

    batch  inputs x outputs  bits  x           AVX-512        AVX2
    1      1024 x 1024       8     float32     2.4 (22 GB/s)  2.2
    1      1024 x 1024       4     float32     2.3 (11 GB/s)  1.9
    1      1024 x 1024       8     8, 16 bits  2.8            2.4
    1      1024 x 1024       4     8, 16 bits  3.3            2.7
    1      4096 x 4096       8     float32     3.4 (26 GB/s)  3.3 (23 GB/s)
    1      4096 x 4096       4     float32     3.3 (13 GB/s)  1.9 (7 GB/s)
    1      4096 x 4096       8     8, 16 bits  3.9 (30 GB/s)  3.5 (25 GB/s)
    1      4096 x 4096       4     8, 16 bits  6.3 (25 GB/s)  3.5 (13 GB/s)
    1      25088 x 4096      8     float32     3.6 (27 GB/s)
    1      25088 x 4096      4     float32     3.3 (12 GB/s)
    1      25088 x 4096      8     8, 16 bits  4.0 (30 GB/s)
    1      25088 x 4096      4     8, 16 bits  6.7 (26 GB/s)
    8      1024 x 1024       8, 4  float32     1.1
    8      1024 x 1024       8, 4  8, 16 bits  1.9 to 2.1
    32     1024 x 1024       8, 4  float32     0.9
    32     1024 x 1024       8, 4  8, 16 bits  1.7 to 1.9

A dense layer at batch 1 is bound by reading its weights. A panel narrower than the tile makes the tile read several
panels side by side: several sequential streams, which the hardware prefetchers follow better than one.
"""

from __future__ import annotations

from collections.abc import Sequence

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.product import product_of_floats
from netopt.kernels.parts.tile import TileSchedule, tiles_by_cost
from netopt.kernels.parts.tiled import TiledKernel
from netopt.kernels.parts.tiled_codes import CodesDense
from netopt.kernels.parts.tiled_dense import TiledDense
from netopt.kernels.parts.tiled_grouped import GroupedDense
from netopt.numerics import Grouped
from netopt.ops import Dense
from netopt.ops.on_codes import multiplies_codes

# --- schedules

# More weights of padding than this make a tile slower than another one.
_PADDED = 1.06


def _vector_tiles(outputs: int, cpu: Cpu) -> list[tuple[int, int]]:
    """Tiles for one row. Bound by bytes: the fewer of them are padding, then the more streams, the better."""
    widest = -(-outputs // cpu.lanes)
    choices = range(1, min(12, widest) + 1)
    return [(1, v) for v in sorted(choices, key=lambda v: (v < 4, v > 8, -(-widest // v) * v, -v))]


def _cuts(inputs: int) -> list[int]:
    """Numbers of blocks that leave 256 to 1024 inputs in each, if there are any, coarse ones first."""
    return [n for n in range(2, inputs // 256 + 1) if inputs % n == 0 and inputs // n <= 1024][:2]


class DenseKernel(TiledKernel[Dense, TileSchedule]):
    """See the module's docstring for the rates."""

    op = Dense

    def tiled(self, problem: Problem[Dense], cpu: Cpu) -> TiledDense:
        if isinstance(problem.inputs[1].format, Grouped):
            return GroupedDense(problem, cpu)
        if multiplies_codes(problem.inputs):
            return CodesDense(problem, cpu)
        return TiledDense(problem, product_of_floats(problem, cpu))

    def schedules(self, problem: Problem[Dense], cpu: Cpu) -> Sequence[TileSchedule]:
        tiled = self.tiled(problem, cpu)
        if isinstance(tiled, GroupedDense):
            return grouped_schedules(tiled, cpu)
        return code_schedules(tiled, cpu) if isinstance(tiled, CodesDense) else dense_schedules(tiled, cpu)


def code_schedules(size: CodesDense, cpu: Cpu) -> Sequence[TileSchedule]:
    """The table of schedules of products of codes, the default first."""
    cpu, blocks = size.product.for_tiles(cpu), size.product.blocks(size.steps)
    if size.rows == 1:
        tiles = _code_vector_tiles(size.outputs, cpu)
    else:
        # Wider tiles of pairs and fours do not keep their sums in registers.
        narrow = [tile for tile in tiles_by_cost(size.rows, size.outputs, cpu) if tile[1] <= 2]
        tiles = sorted(narrow[:8], key=lambda tile: size.rows % tile[0] != 0)
    return [
        TileSchedule(rows, vectors, panel, unroll, blocks)
        for unroll in (1, 2)
        for rows, vectors in tiles[:6]
        for panel in dict.fromkeys(min(vectors, panel) for panel in (2, 1))
        if vectors % panel == 0
    ]


def _code_vector_tiles(outputs: int, cpu: Cpu) -> list[tuple[int, int]]:
    """Tiles of codes for one row: with two vectors in a panel a few streams, each a quarter of floats'."""
    widest = -(-outputs // cpu.lanes)
    wanted = [vectors for vectors in (4, 6, 8, 3, 5, 7, 2, 1) if vectors <= widest]
    return [(1, v) for v in sorted(wanted, key=lambda v: -(-widest // v) * v > _PADDED * widest)]


def dense_schedules(size: TiledDense, cpu: Cpu) -> Sequence[TileSchedule]:
    """The table of schedules of products of floats, the default first."""
    if size.rows == 1:
        return [
            TileSchedule(rows, vectors, panel, unroll)
            for unroll in (1, 2)
            for rows, vectors in _vector_tiles(size.outputs, cpu)[:6]
            for panel in dict.fromkeys((1, 2, vectors))
            if vectors % panel == 0
        ]
    # Rows that share a panel read it again: from the first-level cache, if it is cut to fit there.
    cuts = [*_cuts(size.steps), 1] if size.rows > 8 and size.inputs > 1024 else [1]
    return [
        TileSchedule(rows, vectors, panel, unroll, blocks)
        for unroll in (1, 2)
        for rows, vectors in tiles_by_cost(size.rows, size.outputs, cpu)[:6]
        for blocks in cuts
        for panel in dict.fromkeys((1, vectors))
    ]


def grouped_schedules(size: GroupedDense, cpu: Cpu) -> Sequence[TileSchedule]:
    """The same of products with grouped weights."""
    # Pairs side by side in wider panels than two vectors are taken apart by shuffles.
    widest = 2 if size.product.neighbours > 1 else cpu.registers
    if size.rows == 1:
        tiles = _vector_tiles(size.outputs, cpu)
        panels: tuple[int, ...] = (widest, 2, 1)
    else:
        # A vector of weights takes a register as it lies in memory, and one as it is multiplied.
        tiles = [(r, v) for r, v in tiles_by_cost(size.rows, size.outputs, cpu) if (r + 2) * v + 3 <= cpu.registers]
        panels = (1, 2)
    return [
        TileSchedule(rows, vectors, panel)
        for rows, vectors in tiles[:6]
        for panel in dict.fromkeys(min(vectors, panel) for panel in panels)
        if vectors % panel == 0
    ]
