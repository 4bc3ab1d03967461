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
cache, one panel a vector; * with pixels first:

    input          kernel  outputs  rows x vectors: 14 x 2  6 x 4  7 x 3  7 x 2  4 x 6
    64 x 56 x 56   3 x 3   64                       131     131    89
    128 x 28 x 28  3 x 3   128                      133     131    117
    256 x 14 x 14  3 x 3   256                      132            116
    512 x 7 x 7    3 x 3   512                      132            125    131
    3 x 224 x 224  3 x 3   64 (stride 2)            113     117*   83
    16 x 112 x 112 1 x 1   96                       97*            98*           100*
    64 x 14 x 14   1 x 1   384                      116            117           117
    64 x 56 x 56   1 x 1   256                      124     125*                 111

Depthwise convolutions have vectors along the channels, and a window of up to 7 x 7 unrolled. With a window of one
pixel (batch normalization that no layer takes) and whole vectors of channels they run at the rate of a copy: 256 x 28 x
28 with relu in 14.7 us on an AMD EPYC (Zen 5, AVX-512), where PyTorch copies in 14.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import halide as hl
import numpy as np

from netopt.kernels.cpu import Cpu
from netopt.kernels.kernel import Array, OnePipeline, Pipeline, Problem, fix_output, float_input
from netopt.kernels.pointwise import apply_pointwise
from netopt.kernels.spatial import channels_last, zero_halo
from netopt.kernels.tile import TileSchedule, TileSum, bands_of, is_avx512, share_tiles, tile_cost, tile_costs
from netopt.numerics import Shape
from netopt.ops import Conv2d

# Elements of a depthwise window that are written out at most (7 x 7), so that code and compile time stay bounded.
_UNROLLED_WINDOW = 49
# Bytes of weights that every tile of pixels may read anew: they stay in the first two levels of cache.
_CACHED_WEIGHTS = 64 * 2**10
# Steps along the inputs that weights are prefetched before their use: a tile of 14 x 2 takes 14 cycles for each. On 512
# x 7 x 7 with 3 x 3 weights from memory 0, 16, 48, 96 and 160 steps gave 109, 104, 119, 130 and 129 GMAC/s.
_AHEAD = 64
# Costs of tiles that differ by less than measurements do.
_AS_GOOD = 1.02


@dataclass(frozen=True)
class Conv2dSchedule(TileSchedule):
    """A register tile over an image: with more rows than a line has pixels it spans several whole lines.

    Attributes:
        pixels_first: the pixels of a tile are computed for all outputs before the next tile of pixels, rather than
            the whole image for the outputs of a tile.
        ahead: the weights are prefetched as many steps along the inputs before their use; 0: not at all.
    """

    pixels_first: bool = False
    ahead: int = 0


@dataclass(frozen=True)
class _Strip:
    """Lines of an image that are computed alike: `count` times as many as a register tile spans, from `start` on."""

    start: int
    count: int
    lines: int
    width: int

    def pixel(self, x: hl.Expr, y: hl.Expr) -> tuple[hl.Expr, hl.Expr]:
        """Column and line of pixel `x` of the `y`-th group of lines."""
        if self.lines == 1:
            return x, y + self.start
        return x % self.width, y * self.lines + x // self.width + self.start


class _Size:
    """The shapes of one convolution, as the pipeline sees them."""

    def __init__(self, problem: Problem) -> None:
        assert isinstance(problem.op, Conv2d)
        op = problem.op
        x, weight = problem.inputs[:2]
        self.op, self.groups = op, op.groups
        self.outputs, self.inputs, *kernel = weight.shape[0] // op.groups, weight.shape[1], *weight.shape[2:]
        self.kernel_height, self.kernel_width = kernel
        self.batch, _, self.height, self.width = problem.output.shape
        self.depthwise = self.outputs == self.inputs == 1 and op.groups > 1
        layouts = [channels_last(type_) for type_ in (x, problem.output)]
        self.source, self.target = (layout.halo for layout in layouts)
        self.residual = channels_last(problem.inputs[op.residual_index]).halo if op.has_residual else (0, 0, 0, 0)
        self.source_shape, self.target_shape = (
            layout.physical(type_.shape) for layout, type_ in zip(layouts, (x, problem.output), strict=True)
        )
        # A 1x1 convolution without strides or halos is a matrix product over all pixels of all images.
        plain = kernel == [1, 1] and op.stride == (1, 1) and not any((*self.source, *self.target, *self.residual))
        self.is_matrix_product = plain and not any(op.padding)
        if self.is_matrix_product:
            pixels = self.batch * self.height * self.width
            self.batch, self.height, self.width = 1, 1, pixels
            self.source_shape = (1, 1, pixels, self.source_shape[3])
            self.target_shape = (1, 1, pixels, self.target_shape[3])

        weights = 4 * self.groups * self.outputs * self.inputs * self.kernel_height * self.kernel_width
        self.pixels_first = weights <= _CACHED_WEIGHTS

    def image(self, shape: Shape) -> Shape:
        """A shape in memory with the channels as (groups, channels of a group)."""
        if self.depthwise:
            return shape
        return (*shape[:3], self.groups, shape[3] // self.groups)


def _strips(size: _Size, rows: int) -> list[_Strip]:
    """Cut an image into parts without remainders, so that each pixel is written once."""
    lines = min(max(1, rows // size.width), size.height)
    count, rest = divmod(size.height, lines)
    strips = [_Strip(0, count, lines, size.width), _Strip(size.height - rest, 1, rest, size.width)]
    return [strip for strip in strips if strip.lines]


# --- schedules


def _tiles(size: _Size, cpu: Cpu) -> list[tuple[int, int]]:
    """Register tiles (rows, vectors), the most promising first."""
    by_cost = tile_costs(size.width, size.outputs, cpu)
    costs = {tile: cost * size.height for tile, cost in by_cost[:8]}
    # Lines that are too short for a tile: several of them.
    for vectors in {vectors for _, vectors in costs}:
        most = (cpu.registers - 1 - vectors) // vectors // size.width
        for lines in range(2, min(most, size.height) + 1):
            rows = lines * size.width
            costs[rows, vectors] = sum(
                strip.count * tile_cost(strip.lines * size.width, size.outputs, (rows, vectors), cpu)
                for strip in _strips(size, rows)
            )
    best = min(costs.values())
    # Of tiles that are as good: the widest, which writes the most of a pixel at once, where the image is passed once;
    # else the narrowest, whose panel is the smallest. Then those that fit the lines.
    sign = -1 if size.pixels_first else 1
    good = {tile for tile, cost in costs.items() if cost <= _AS_GOOD * best and is_avx512(cpu)}

    def order(tile: tuple[int, int]) -> tuple[bool, int, bool, float, tuple[int, int]]:
        if tile not in good:
            return True, 0, False, costs[tile], tile
        whole = size.width % tile[0] == 0 or tile[0] % size.width == 0
        return False, sign * tile[1], not whole, costs[tile], tile

    return sorted(costs, key=order)[:5]


def _depthwise_schedules(size: _Size, cpu: Cpu) -> list[Conv2dSchedule]:
    whole = size.groups // cpu.lanes
    vectors = [v for v in (4, 2, 3, 1) if whole % v == 0] if whole else [1]
    heights = (4, 3, 2)
    if is_avx512(cpu) and size.kernel_height * size.kernel_width > 1:
        # Longer tiles of fewer channels: their inputs are shared along the line, and the window's weights stay in
        # registers.
        vectors.sort(key=lambda v: (v > 2, -v))
        heights = (7, 6, 4) if size.width % 7 == 0 else (6, 7, 4)
    table = [Conv2dSchedule(rows, v, 1) for v in vectors for rows in heights if rows <= size.width]
    return table or [Conv2dSchedule(size.width, vectors[0], 1)]


class Conv2dKernel(OnePipeline[Conv2dSchedule]):
    """See the module."""

    op = Conv2d

    def schedules(self, problem: Problem, cpu: Cpu) -> Sequence[Conv2dSchedule]:
        size = _Size(problem)
        if size.depthwise:
            return _depthwise_schedules(size, cpu)
        # The rules below were measured on AVX-512; elsewhere the defaults are those that were measured on AVX2.
        tiles, pixels_first = _tiles(size, cpu), size.pixels_first and is_avx512(cpu)
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

    def argument_shapes(self, problem: Problem, schedule: Conv2dSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        size = _Size(problem)
        target = size.image(size.target_shape)
        result: list[Shape] = [size.image(size.source_shape)]
        if size.depthwise:
            result.append((size.kernel_height, size.kernel_width, size.groups))
            bias: Shape = (size.groups,)
        else:
            tile, panel = schedule.vectors * cpu.lanes, schedule.panel * cpu.lanes
            padded = -(-size.outputs // tile) * tile
            kernel = (size.kernel_height, size.kernel_width)
            result.append((size.groups, padded // panel, *kernel, size.inputs, panel))
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

    def pack(self, problem: Problem, schedule: Conv2dSchedule, cpu: Cpu, index: int, value: Array) -> Array:
        shape = self.argument_shapes(problem, schedule, cpu)[index]
        size = _Size(problem)
        if size.depthwise:
            return np.ascontiguousarray(value[:, 0].transpose(1, 2, 0)) if index == 1 else value
        grouped = value.reshape(size.groups, size.outputs, *value.shape[1:])
        padding = [(0, 0), (0, -size.outputs % (schedule.vectors * cpu.lanes))] + [(0, 0)] * (grouped.ndim - 2)
        padded = np.pad(grouped, padding)
        if index == 2:
            return padded
        groups, panels, height, width, inputs, panel = shape
        split = padded.reshape(groups, panels, panel, inputs, height, width)
        return np.ascontiguousarray(split.transpose(0, 1, 4, 5, 3, 2))

    def unpack(self, problem: Problem, index: int, packed: Array) -> Array:
        size, shape = _Size(problem), problem.inputs[index].shape
        if size.depthwise:
            return np.ascontiguousarray(packed.transpose(2, 0, 1)[:, None]) if index == 1 else packed
        if index == 1:
            groups, panels, height, width, inputs, panel = packed.shape
            packed = packed.transpose(0, 1, 5, 4, 2, 3).reshape(groups, panels * panel, inputs, height, width)
        return np.ascontiguousarray(packed[:, : size.outputs]).reshape(shape)

    def build(self, problem: Problem, schedule: Conv2dSchedule, cpu: Cpu) -> Pipeline:
        assert isinstance(problem.op, Conv2d)
        names = ["x", "weight", *["bias"] * problem.op.has_bias, *["residual"] * problem.op.has_residual]
        *shapes, output = self.argument_shapes(problem, schedule, cpu)
        inputs = {n: float_input(n, shape, at) for n, shape, at in zip(names, shapes, problem.inputs, strict=True)}
        size = _Size(problem)
        build = _depthwise if size.depthwise else _direct
        out = build(inputs, size, schedule, cpu, problem.threads)
        fix_output(out, output, problem.output)
        return Pipeline(out, tuple(inputs.values()))


def _source_at(size: _Size, x: hl.Expr, y: hl.Expr, kx: hl.Expr, ky: hl.Expr) -> tuple[hl.Expr, hl.Expr]:
    """Column and row in memory of the input of the window's element (kx, ky) for the output (x, y).

    The halo may be larger than the padding, where another layer needs more of it.
    """
    op, (top, _, left, _) = size.op, size.source
    column = x * op.stride[1] + kx * op.dilation[1] + (left - op.padding[2])
    row = y * op.stride[0] + ky * op.dilation[0] + (top - op.padding[0])
    return column, row


def _direct(inputs: dict[str, hl.ImageParam], size: _Size, schedule: Conv2dSchedule, cpu: Cpu, threads: int) -> hl.Func:
    lanes, panel, tile = cpu.lanes, schedule.panel * cpu.lanes, schedule.vectors * cpu.lanes
    c, g, n, out = hl.Var("c"), hl.Var("g"), hl.Var("n"), hl.Func("out")
    out[c, g, hl.Var("x"), hl.Var("y"), n] = hl.undef(hl.Float(32))
    top, _, left, _ = size.target
    weight, source, window = inputs["weight"], inputs["x"], size.kernel_height * size.kernel_width

    def term(strip: _Strip, c: hl.Var, x: hl.Var, others: Sequence[hl.Var], k: Sequence[hl.Expr]) -> hl.Expr:
        g, y, n = others
        column, row = _source_at(size, *strip.pixel(x, y), k[1], k[2])
        return weight[c % panel, k[0], k[1], k[2], c // panel, g] * source[k[0], g, column, row, n]

    parts = [(strip, b) for strip in _strips(size, schedule.rows) for b in bands_of(strip.lines * size.width, schedule)]
    for number, (strip, band) in enumerate(parts):
        # --- algorithm
        domain = hl.RDom([(band.start, band.rows), (0, strip.count)], f"band{number}")
        x, y = domain.x, domain.y
        column, line = strip.pixel(x, y)
        product = TileSum(
            f"_{number}",
            [hl.Var("g"), hl.Var("y"), hl.Var("image")],
            [size.inputs, size.kernel_width, size.kernel_height],
            schedule,
            lanes,
            lambda c, g, y, n: inputs["bias"][c, g] if "bias" in inputs else hl.f32(0.0),
            partial(term, strip),
        )
        total = product.total[c, x, g, y, n]
        if size.op.has_residual:
            total += inputs["residual"][c, g, column + size.residual[2], line + size.residual[0], n]
        out[c, g, column + left, line + top, n] = apply_pointwise(size.op.activation, total)
        # --- schedule
        c_out, c_in = hl.Var("c_out"), hl.Var("c_in")
        x_out, x_in = hl.RVar("x_out"), hl.RVar("x_in")
        stage = out.update(number)
        stage.split(c, c_out, c_in, tile, hl.TailStrategy.GuardWithIf).split(x, x_out, x_in, band.block)
        loops = [c_out, x_out, y, n] if schedule.pixels_first else [x_out, y, n, c_out]
        stage.reorder(c_in, x_in, *loops, g).vectorize(c_in, lanes)
        if band.block == band.tile:
            stage.unroll(x_in)
        work = band.rows * strip.count * size.batch * size.outputs * size.inputs * window
        if schedule.pixels_first and size.is_matrix_product:
            share_tiles(stage, x_out, band.rows // band.block, work, threads)
        elif schedule.pixels_first:
            share_tiles(stage, y, strip.count, work, threads)
        else:
            share_tiles(stage, c_out, -(-size.outputs // tile), work, threads)
        product.schedule(out, loops[0], band)
        if schedule.ahead:
            product.prefetch(weight, schedule.ahead)
    zero_halo(out, [c, g], n, size.target, size.target_shape, len(parts), lanes)
    return out


def _depthwise(
    inputs: dict[str, hl.ImageParam], size: _Size, schedule: Conv2dSchedule, cpu: Cpu, threads: int
) -> hl.Func:
    c, n, out = hl.Var("c"), hl.Var("n"), hl.Func("out")
    out[c, hl.Var("x"), hl.Var("y"), n] = hl.undef(hl.Float(32))
    # What is left over of the channels is one shorter vector: no memory may be read beyond them.
    whole = size.groups // cpu.lanes * cpu.lanes
    parts = [(0, whole, schedule.vectors, cpu.lanes), (whole, size.groups - whole, 1, size.groups - whole)]
    updates = 0
    for start, channels, vectors, lanes in parts:
        for band in bands_of(size.width, schedule) if channels else ():
            tiles = hl.RDom(
                [(start, channels), (size.target[2] + band.start, band.rows), (size.target[0], size.height)],
                f"band{updates}",
            )
            total = _depthwise_sum(f"total_{updates}", inputs, size, vectors, lanes)
            _depthwise_band(out, total, tiles, n, inputs, size)
            # --- schedule
            c_out, c_in, x_out, x_in = (hl.RVar(name) for name in ("c_out", "c_in", "x_out", "x_in"))
            stage = out.update(updates)
            exact = hl.TailStrategy.GuardWithIf  # without remainders: no guard is needed
            stage.split(tiles[0], c_out, c_in, vectors * lanes, exact).split(tiles[1], x_out, x_in, band.tile, exact)
            stage.reorder(c_in, x_in, x_out, tiles[2], c_out, n).vectorize(c_in, lanes).unroll(c_in).unroll(x_in)
            total.compute_at(out, x_out)
            work = band.rows * size.height * size.batch * channels * size.kernel_width * size.kernel_height
            share_tiles(stage, c_out, channels // (vectors * lanes), work, threads)
            updates += 1
    zero_halo(out, [c], n, size.target, size.target_shape, updates, cpu.lanes)
    return out


def _depthwise_sum(name: str, inputs: dict[str, hl.ImageParam], size: _Size, vectors: int, lanes: int) -> hl.Func:
    """The sums over the window of a tile, in registers."""
    # --- algorithm
    c, x, y, n, total = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func(name)
    window = hl.RDom([(0, size.kernel_width), (0, size.kernel_height)], f"{name}_window")
    column, row = _source_at(size, x, y, window.x, window.y)
    total[c, x, y, n] = inputs["bias"][c] if "bias" in inputs else hl.f32(0.0)
    total[c, x, y, n] += inputs["weight"][c, window.x, window.y] * inputs["x"][c, column, row, n]
    # --- schedule
    total.bound_extent(c, vectors * lanes).vectorize(c, lanes).unroll(c).unroll(x)
    update = total.update().reorder(c, x, window.x, window.y).vectorize(c, lanes).unroll(c).unroll(x)
    if size.kernel_width * size.kernel_height <= _UNROLLED_WINDOW:
        update.unroll(window.x).unroll(window.y)
    return total


def _depthwise_band(
    out: hl.Func, total: hl.Func, tiles: hl.RDom, n: hl.Var, inputs: dict[str, hl.ImageParam], size: _Size
) -> None:
    """The output over (channels, columns, rows) of `tiles`, in coordinates of its memory."""
    # --- algorithm
    c, x, y = tiles[0], tiles[1], tiles[2]
    top, _, left, _ = size.target
    value = total[c, x - left, y - top, n]
    if size.op.has_residual:
        value += inputs["residual"][c, x + (size.residual[2] - left), y + (size.residual[0] - top), n]
    out[c, x, y, n] = apply_pointwise(size.op.activation, value)
