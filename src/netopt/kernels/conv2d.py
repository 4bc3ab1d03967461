"""Convolutions: direct, in register tiles of pixels x output channels, with bias, residual and activation at the end.

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
from functools import partial

import halide as hl
import numpy as np

from netopt.kernels.depthwise import depthwise, depthwise_schedules
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source, storage_type
from netopt.kernels.machine.kernel import OnePipeline, Pipeline, Problem, fix_output, float_input
from netopt.kernels.parts.conv2d_size import Conv2dSchedule, ImageSize, Strip, source_at, strips_of, tiles_of
from netopt.kernels.parts.epilogue import finish
from netopt.kernels.parts.pairs import in_pair, paired, product, unpaired
from netopt.kernels.parts.spatial import zero_halo
from netopt.kernels.parts.tile import TileSum, bands_of, is_avx512, share_evenly
from netopt.numerics import Shape
from netopt.ops import Conv2d

# Steps along the inputs that weights are prefetched before their use: a tile of 14 x 2 takes 14 cycles for each. On 512
# x 7 x 7 with 3 x 3 weights from memory 0, 16, 48, 96 and 160 steps gave 109, 104, 119, 130 and 129 GMAC/s.
_AHEAD = 64


class Conv2dKernel(OnePipeline[Conv2d, Conv2dSchedule]):
    """See the module."""

    op = Conv2d

    def schedules(self, problem: Problem[Conv2d], cpu: Cpu) -> Sequence[Conv2dSchedule]:
        size = ImageSize(problem)
        if size.depthwise:
            return depthwise_schedules(size, cpu)
        # The rules below were measured on AVX-512; elsewhere the defaults are those that were measured on AVX2.
        tiles, pixels_first = tiles_of(size, cpu), size.pixels_first and is_avx512(cpu)
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

    def argument_shapes(self, problem: Problem[Conv2d], schedule: Conv2dSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        size = ImageSize(problem)
        target = size.image(size.target_shape)
        result: list[Shape] = [size.image(size.source_shape)]
        if size.rows_of_pairs:
            result = [(*size.source_shape[:2], size.source_shape[2] * size.source_shape[3])]
        if size.depthwise:
            result.append((size.kernel_height, size.kernel_width, size.groups))
            bias: Shape = (size.groups,)
        else:
            tile, panel = schedule.vectors * cpu.lanes, schedule.panel * cpu.lanes
            padded = -(-size.outputs // tile) * tile
            kernel = (size.kernel_height, size.columns)
            terms = (-(-size.run // 2), panel, 2) if size.pairs else (size.run, panel)
            result.append((size.groups, padded // panel, *kernel, *terms))
            bias = (size.groups, padded)
        if size.op.has_bias:
            result.append(bias)
        if size.op.has_residual:
            top, bottom, left, right = size.residual
            batch, height, width, *channels = target
            if not size.is_matrix_product:
                height, width = size.height + top + bottom, size.width + left + right
            result.append((batch, height, width, *channels))
        return (*result, target)

    def pack(self, problem: Problem[Conv2d], schedule: Conv2dSchedule, cpu: Cpu, index: int, value: Array) -> Array:
        shape = self.argument_shapes(problem, schedule, cpu)[index]
        size = ImageSize(problem)
        if size.depthwise:
            return np.ascontiguousarray(value[:, 0].transpose(1, 2, 0)) if index == 1 else value
        panel = schedule.panel * cpu.lanes
        grouped = value.reshape(size.groups, size.outputs, *value.shape[1:])
        padding = [(0, 0), (0, -size.outputs % (schedule.vectors * cpu.lanes))] + [(0, 0)] * (grouped.ndim - 2)
        padded = np.pad(grouped, padding)
        if index == 2:
            return padded
        split = padded.reshape(size.groups, -1, panel, size.inputs, size.kernel_height, size.kernel_width)
        by_term = split.transpose(0, 1, 4, 5, 3, 2)
        if not size.pairs:
            return np.ascontiguousarray(by_term)
        runs = by_term.reshape(*by_term.shape[:3], size.columns, size.run, panel)
        return np.ascontiguousarray(paired(runs)).reshape(shape)

    def unpack(self, problem: Problem[Conv2d], schedule: Conv2dSchedule, cpu: Cpu, index: int, packed: Array) -> Array:
        size, shape = ImageSize(problem), problem.inputs[index].shape
        if size.depthwise:
            return np.ascontiguousarray(packed.transpose(2, 0, 1)[:, None]) if index == 1 else packed
        if index == 1:
            if size.pairs:
                packed = unpaired(packed, size.run)
            groups, panels = packed.shape[:2]
            panel = packed.shape[-1]
            by_term = packed.reshape(groups, panels, size.kernel_height, size.kernel_width, size.inputs, panel)
            by_output = by_term.transpose(0, 1, 5, 4, 2, 3)
            packed = by_output.reshape(groups, panels * panel, *by_output.shape[3:])
        return np.ascontiguousarray(packed[:, : size.outputs]).reshape(shape)

    def build(self, problem: Problem[Conv2d], schedule: Conv2dSchedule, cpu: Cpu) -> Pipeline:
        names = ["x", "weight", *["bias"] * problem.op.has_bias, *["residual"] * problem.op.has_residual]
        *shapes, output = self.argument_shapes(problem, schedule, cpu)
        inputs = {n: float_input(n, shape, at) for n, shape, at in zip(names, shapes, problem.inputs, strict=True)}
        size = ImageSize(problem)
        build = depthwise if size.depthwise else build_direct
        out = build(inputs, size, schedule, cpu, problem.threads)
        fix_output(out, output, problem.output)
        return Pipeline(out, tuple(inputs.values()))


def build_direct(
    inputs: dict[str, Source], size: ImageSize, schedule: Conv2dSchedule, cpu: Cpu, threads: int
) -> hl.Func:
    """A convolution of x and weight, with scale, bias and residual where there are such."""
    lanes, panel, tile = cpu.lanes, schedule.panel * cpu.lanes, schedule.vectors * cpu.lanes
    c, g, n, out = hl.Var("c"), hl.Var("g"), hl.Var("n"), hl.Func("out")
    out[c, g, hl.Var("x"), hl.Var("y"), n] = hl.undef(storage_type(size.format))
    top, _, left, _ = size.target
    weight, source, window = inputs["weight"], inputs["x"], size.kernel_height * size.kernel_width
    extents = [size.run, size.columns, size.kernel_height]
    starts_with_bias = "bias" in inputs and "scale" not in inputs

    def term(strip: Strip, c: hl.Var, x: hl.Var, others: Sequence[hl.Var], k: Sequence[hl.Expr]) -> hl.Expr:
        g, y, n = others
        column, row = source_at(size, *strip.pixel(x, y), k[1], k[2])
        return weight[c % panel, k[0], k[1], k[2], c // panel, g] * source[k[0], g, column, row, n]

    def term_of_pair(strip: Strip, c: hl.Var, x: hl.Var, others: Sequence[hl.Var], k: Sequence[hl.Expr]) -> hl.Expr:
        g, y, n = others
        column, row = source_at(size, *strip.pixel(x, y), k[2], k[3])
        at = in_pair(k[1], k[0], size.run)
        place = [column * size.inputs + at, row, n] if size.rows_of_pairs else [at, g, column, row, n]
        return product(weight, [k[0], c % panel, k[1], k[2], k[3], c // panel, g], source, place, cpu)

    parts = [
        (strip, b) for strip in strips_of(size, schedule.rows) for b in bands_of(strip.lines * size.width, schedule)
    ]
    for number, (strip, band) in enumerate(parts):
        # --- algorithm
        domain = hl.RDom([(band.start, band.rows), (0, strip.count)], f"band{number}")
        x, y = domain.x, domain.y
        column, line = strip.pixel(x, y)
        tile_sum = TileSum(
            f"_{number}",
            [hl.Var("g"), hl.Var("y"), hl.Var("image")],
            [2, -(-extents[0] // 2), *extents[1:]] if size.pairs else extents,
            schedule,
            lanes,
            lambda c, g, y, n: inputs["bias"][c, g] if starts_with_bias else hl.f32(0.0),
            partial(term_of_pair if size.pairs else term, strip),
            pairs=size.pairs,
        )
        place = [c, g, column + size.residual[2], line + size.residual[0], n]
        out[c, g, column + left, line + top, n] = finish(
            tile_sum.total[c, x, g, y, n],
            size.op.activation,
            size.format,
            scale=inputs["scale"][c, g] if "scale" in inputs else None,
            bias=inputs["bias"][c, g] if "bias" in inputs and not starts_with_bias else None,
            residual=inputs["residual"][place] if size.op.has_residual else None,
        )
        # --- schedule
        c_out, c_in = hl.Var("c_out"), hl.Var("c_in")
        x_out, x_in = hl.RVar("x_out"), hl.RVar("x_in")
        stage = out.update(number)
        stage.split(c, c_out, c_in, tile, hl.TailStrategy.GuardWithIf).split(x, x_out, x_in, band.block)
        loops = [c_out, x_out, y, n] if schedule.pixels_first else [x_out, y, n, c_out]
        order = [c_in, x_in, *loops, g]
        stage.reorder(*order).vectorize(c_in, lanes)
        if band.block == band.tile:
            stage.unroll(x_in)
        work = band.rows * strip.count * size.batch * size.outputs * size.inputs * window
        extents_of_loops = [(c_out, -(-size.outputs // tile)), (y, strip.count), (x_out, band.rows // band.block)]
        share_evenly(stage, extents_of_loops, order, work, threads)
        tile_sum.schedule(out, loops[0], band)
        if schedule.ahead:
            tile_sum.prefetch(weight.param, schedule.ahead)
    zero_halo(out, [c, g], n, size.target, size.target_shape, len(parts), lanes)
    return out
