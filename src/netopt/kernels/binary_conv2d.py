"""Convolutions with weights of one bit: on packed signs, or on floating numbers.

On signs: register tiles of pixels x output channels, as in conv2d.py, of the counts of sign_products.py. Sums are
whole numbers, exact, with padding by 0, too: see sign_border.py.

Seen on one core of an AMD EPYC (Zen 5, AVX-512 VPOPCNTDQ; 145 GMAC/s of float32 at most), GMAC/s at batch 1, to floats;
to packed signs it was 2 to 5 % more; and with code for AVX2 alone:

    input          outputs  rows x vectors: 14 x 2  6 x 4  5 x 4  7 x 2   AVX2: 4 x 2  8 x 1
    64 x 56 x 56   64                       2330    2390                        464    467
    128 x 28 x 28  128                      2340    2500   2540                 475    472
    256 x 14 x 14  256                      2550    2630   2650   2640          467    466
    512 x 7 x 7    512                      2610    2570   2630   2650          474    476

On floating numbers: as in conv2d.py. One bit a weight in files; in memory the weights are floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import halide as hl

from netopt.kernels.conv2d import conv2d_schedules
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.conv2d_size import Conv2dSchedule, ImageSize, strips_of
from netopt.kernels.parts.epilogue import Place, Result
from netopt.kernels.parts.product import SignsAsFloats
from netopt.kernels.parts.sign_border import SignBorder
from netopt.kernels.parts.sign_products import SignCounts
from netopt.kernels.parts.sign_tile import sign_tile_cost, tiles
from netopt.kernels.parts.tiled import TiledKernel
from netopt.kernels.parts.tiled_conv2d import TiledConv2d
from netopt.numerics import INT32, NumberFormat, Shape
from netopt.ops import BinaryConv2d

# Bytes of packed weights that every tile of pixels may read anew.
_CACHED_WEIGHTS = 24 * 2**10


class SignConv2d(TiledConv2d):
    """A convolution of signs, with a table beside the weights: what a sum is where no sign differs."""

    def __init__(self, problem: Problem[BinaryConv2d], cpu: Cpu) -> None:
        self.counts = SignCounts.of(cpu)
        super().__init__(problem, self.counts)
        self.border = SignBorder(problem.op, self.size)

    def weight_parts(self, s: Conv2dSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        rows, columns = self.border.classes
        return {**super().weight_parts(s), "table": ((self.groups, rows * columns, self.padded(s)), INT32)}

    def pack_weight(self, s: Conv2dSchedule, value: Array) -> Sequence[Array]:
        return [*super().pack_weight(s, value), self.border.table(self.by_group(value), self.padded(s))]

    def result(self, inputs: Mapping[str, Source]) -> Result:
        table = inputs["table"]

        def sum_of(count: hl.Expr, place: Place) -> hl.Expr:
            c, g = place.vector
            return self.counts.sum_of(count, table[c, self.border.class_at(*place.pixel), g])

        return sum_of


class BinaryConv2dKernel(TiledKernel[BinaryConv2d, Conv2dSchedule]):
    """See the module."""

    op = BinaryConv2d

    def tiled(self, problem: Problem[BinaryConv2d], cpu: Cpu) -> TiledConv2d:
        if problem.op.reads_signs(problem.inputs):
            return SignConv2d(problem, cpu)
        return TiledConv2d(problem, SignsAsFloats(cpu.lanes))

    def schedules(self, problem: Problem[BinaryConv2d], cpu: Cpu) -> Sequence[Conv2dSchedule]:
        size = self.tiled(problem, cpu).size
        if not problem.op.reads_signs(problem.inputs):
            return conv2d_schedules(size, cpu)
        words = -(-size.inputs // 32)
        pixels_first = 4 * size.groups * size.outputs * words * size.window <= _CACHED_WEIGHTS
        best = _tiles(size, cpu, whole_words=problem.op.has_threshold)
        orders = (pixels_first, not pixels_first)
        return [Conv2dSchedule(rows, vectors, vectors, 1, 1, first) for first in orders for rows, vectors in best[:4]]

    def packing(self, problem: Problem[BinaryConv2d], schedule: Conv2dSchedule) -> tuple[int, ...]:
        op = problem.op
        places = (*problem.inputs[0].shape, *op.stride, *op.padding, *op.dilation, op.pad_one)
        return (schedule.panel, schedule.vectors, op.reads_signs(problem.inputs), *places)


def _tiles(size: ImageSize, cpu: Cpu, *, whole_words: bool) -> list[tuple[int, int]]:
    """Register tiles (rows, vectors) of signs, the most promising first: of a line, or of several short lines."""
    costs = {
        tile: size.height * sign_tile_cost(size.width, size.outputs, tile, cpu)
        for tile in tiles(size.width, size.outputs, cpu, whole_words=whole_words)
    }
    for rows, vectors in tiles(31, size.outputs, cpu, whole_words=whole_words):
        if rows % size.width == 0 and size.width < rows <= size.height * size.width:
            costs[rows, vectors] = sum(
                strip.count * sign_tile_cost(strip.lines * size.width, size.outputs, (rows, vectors), cpu)
                for strip in strips_of(size, rows)
            )
    return sorted(costs, key=lambda tile: (costs[tile], tile))
