"""Convolutions: direct, in register tiles of pixels x output channels, with bias, residual and activation as epilogue.

Activations are channels last, with the zeros of the padding in memory around them, so that no pixel is a special case.
Weights are packed (groups, outputs / panel, kernel height, kernel width, inputs, panel).

Seen on one core of an AMD EPYC (Zen 3, AVX2), GMAC/s at batch 1; PyTorch 2.13, channels last, did 42, 43 and 39 in the
first three:

    input         kernel  outputs  rows x vectors: 4 x 2   6 x 2   4 x 3   7 x 1
    64 x 56 x 56  3 x 3   64                       43      41      35      31
    128 x 28 x 28 3 x 3   128                      39      42      39      35
    256 x 14 x 14 3 x 3   256                      38      35
    512 x 7 x 7   3 x 3   512                      36      29      37      35
    64 x 56 x 56  1 x 1   256                      41      39      39

Seen on one core of an AMD EPYC (Zen 5, AVX-512; its peak is about 145), GMAC/s at batch 1, weights and images in the
cache, mostly one panel a tile, which makes no difference there; * with pixels first:

    input          kernel  outputs  rows x vectors: 14 x 2  6 x 4  7 x 3  7 x 2  4 x 6
    64 x 56 x 56   3 x 3   64                       131     131    89
    128 x 28 x 28  3 x 3   128                      133     131    117
    256 x 14 x 14  3 x 3   256                      132            116
    512 x 7 x 7    3 x 3   512                      132            125    131
    3 x 224 x 224  3 x 3   64 (stride 2)            113     117*   83
    16 x 112 x 112 1 x 1   96                       97*            98*           100*
    64 x 14 x 14   1 x 1   384                      116            117           117
    64 x 56 x 56   1 x 1   256                      124     125*                 111

Depthwise convolutions are in depthwise.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from netopt.kernels.depthwise import Depthwise, is_depthwise
from netopt.kernels.depthwise_codes import CodesDepthwise
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.conv2d_size import Conv2dSchedule, ImageSize, tiles_of
from netopt.kernels.parts.product import product_of_floats
from netopt.kernels.parts.tile import is_avx512
from netopt.kernels.parts.tiled import TiledKernel
from netopt.kernels.parts.tiled_codes import CodesConv2d
from netopt.kernels.parts.tiled_conv2d import TiledConv2d
from netopt.ops import Conv2d
from netopt.ops.on_codes import multiplies_codes

# Steps along the inputs that weights are prefetched before their use: a tile of 14 x 2 takes 14 cycles for each. On 512
# x 7 x 7 with 3 x 3 weights from memory 0, 16, 48, 96 and 160 steps gave 109, 104, 119, 130 and 129 GMAC/s.
_AHEAD = 64
# Bytes of weights that every tile of pixels may read anew: they stay in the first two levels of cache.
_CACHED_WEIGHTS = 64 * 2**10


class Conv2dKernel(TiledKernel[Conv2d, Conv2dSchedule]):
    """See the module."""

    op = Conv2d

    def tiled(self, problem: Problem[Conv2d], cpu: Cpu) -> TiledConv2d | Depthwise:
        on_codes = multiplies_codes(problem.inputs)
        if is_depthwise(problem):
            return CodesDepthwise(problem, cpu) if on_codes else Depthwise(problem, cpu)
        if on_codes:
            return CodesConv2d(problem, cpu)
        return TiledConv2d(problem, product_of_floats(problem, cpu))

    def schedules(self, problem: Problem[Conv2d], cpu: Cpu) -> Sequence[Conv2dSchedule]:
        tiled = self.tiled(problem, cpu)
        if isinstance(tiled, Depthwise):
            return tiled.schedules(cpu)
        return code_schedules(tiled, cpu) if isinstance(tiled, CodesConv2d) else conv2d_schedules(tiled.size, cpu)


def code_schedules(tiled: CodesConv2d, cpu: Cpu) -> Sequence[Conv2dSchedule]:
    """The table of schedules of products of codes, the default first."""
    size, blocks = tiled.size, tiled.product.blocks(tiled.product.steps(tiled.size.run))
    tiles = tiles_of(size, tiled.product.for_tiles(cpu), widest_first=True)
    return [
        Conv2dSchedule(rows, vectors, panel, unroll, blocks, first)
        for unroll in (1, 2)
        for first in (True, False)
        for rows, vectors in tiles
        for panel in dict.fromkeys((vectors, 1))
    ]


def conv2d_schedules(size: ImageSize, cpu: Cpu) -> Sequence[Conv2dSchedule]:
    """The table of schedules of products of floats, the default first."""
    # The rules below were measured on AVX-512; elsewhere the defaults are those that were measured on AVX2.
    weights = 4 * size.groups * size.outputs * size.inputs * size.window
    tiles = tiles_of(size, cpu, widest_first=weights <= _CACHED_WEIGHTS)
    pixels_first = weights <= _CACHED_WEIGHTS and is_avx512(cpu)
    # Weights that are passed once for the whole image come from memory: one stream for each vector, prefetched.
    ahead = _AHEAD if is_avx512(cpu) and not pixels_first else 0
    table = [
        Conv2dSchedule(rows, vectors, panel, 1, 1, first, 0 if first else ahead)
        for first in (pixels_first, not pixels_first)
        for rows, vectors in tiles
        for panel in dict.fromkeys((vectors, 1)[:: -1 if is_avx512(cpu) else 1])
    ]
    return table + [
        Conv2dSchedule(rows, vectors, vectors, unroll, 1, pixels_first, 0)
        for rows, vectors in tiles[:2]
        for unroll in ((1, 2) if ahead else (2,))
    ]
