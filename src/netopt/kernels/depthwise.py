"""Depthwise convolutions: one filter a channel, in register tiles of pixels x channels; see conv2d.py.

Vectors lie along the channels, and a window of up to 7 x 7 is unrolled. With a window of one
pixel (batch normalization that no layer takes) and whole vectors of channels they run at the rate of a copy: 256 x 28 x
28 with relu in 14.7 us on an AMD EPYC (Zen 5, AVX-512), where PyTorch copies in 14.4.
"""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Source, storage_type
from netopt.kernels.parts.conv2d_size import Conv2dSchedule, ImageSize, source_at
from netopt.kernels.parts.epilogue import finish
from netopt.kernels.parts.spatial import zero_halo
from netopt.kernels.parts.tile import bands_of, is_avx512, share_evenly

# Elements of a depthwise window that are written out at most (7 x 7), so that code and compile time stay bounded.
_UNROLLED_WINDOW = 49


def depthwise_schedules(size: ImageSize, cpu: Cpu) -> list[Conv2dSchedule]:
    """The table of schedules, the default first."""
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


def depthwise(inputs: dict[str, Source], size: ImageSize, schedule: Conv2dSchedule, cpu: Cpu, threads: int) -> hl.Func:
    c, n, out = hl.Var("c"), hl.Var("n"), hl.Func("out")
    out[c, hl.Var("x"), hl.Var("y"), n] = hl.undef(storage_type(size.format))
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
            order = [c_in, x_in, x_out, tiles[2], c_out, n]
            stage.reorder(*order).vectorize(c_in, lanes).unroll(c_in).unroll(x_in)
            total.compute_at(out, x_out)
            work = band.rows * size.height * size.batch * channels * size.kernel_width * size.kernel_height
            loops = [(c_out, channels // (vectors * lanes)), (tiles[2], size.height)]
            share_evenly(stage, loops, order, work, threads)
            updates += 1
    zero_halo(out, [c], n, size.target, size.target_shape, updates, cpu.lanes)
    return out


def _depthwise_sum(name: str, inputs: dict[str, Source], size: ImageSize, vectors: int, lanes: int) -> hl.Func:
    """The sums over the window of a tile, in registers."""
    # --- algorithm
    c, x, y, n, total = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func(name)
    window = hl.RDom([(0, size.kernel_width), (0, size.kernel_height)], f"{name}_window")
    column, row = source_at(size, x, y, window.x, window.y)
    total[c, x, y, n] = inputs["bias"][c] if "bias" in inputs else hl.f32(0.0)
    total[c, x, y, n] += inputs["weight"][c, window.x, window.y] * inputs["x"][c, column, row, n]
    # --- schedule
    total.bound_extent(c, vectors * lanes).vectorize(c, lanes).unroll(c).unroll(x)
    update = total.update().reorder(c, x, window.x, window.y).vectorize(c, lanes).unroll(c).unroll(x)
    if size.kernel_width * size.kernel_height <= _UNROLLED_WINDOW:
        update.unroll(window.x).unroll(window.y)
    return total


def _depthwise_band(
    out: hl.Func, total: hl.Func, tiles: hl.RDom, n: hl.Var, inputs: dict[str, Source], size: ImageSize
) -> None:
    """The output over (channels, columns, rows) of `tiles`, in coordinates of its memory."""
    # --- algorithm
    c, x, y = tiles[0], tiles[1], tiles[2]
    top, _, left, _ = size.target
    place = [c, x + (size.residual[2] - left), y + (size.residual[0] - top), n]
    out[c, x, y, n] = finish(
        hl.Expr(total[c, x - left, y - top, n]),
        size.op.activation,
        size.format,
        residual=inputs["residual"][place] if size.op.has_residual else None,
    )
