"""The pipelines of a block of Winograd tiles (see winograd2d.py), each built for the arrays that it is called with."""

from __future__ import annotations

from collections.abc import Sequence

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, storage_type
from netopt.kernels.machine.kernel import Pipeline, fix_part_output, part_input
from netopt.kernels.parts.epilogue import finish
from netopt.kernels.parts.product import Floats, Summation
from netopt.kernels.parts.spatial import zero_halo
from netopt.kernels.parts.tile import TileSchedule, bands_of, share_tiles
from netopt.numerics import FLOAT32, NumberFormat
from netopt.ops import TensorType, Winograd2d
from netopt.ops.spatial import Sides
from netopt.ops.winograd2d import TRANSFORMS


def transform(op: Winograd2d, source: Array, format_: NumberFormat, v: Array, cpu: Cpu, threads: int) -> Pipeline:
    """V = B^T d B of all tiles.

    Args:
        op: what is computed.
        source: (images, rows, columns, channels): what the tiles are cut from.
        format_: of the source.
        v: (points, points, images, rows of tiles, columns of tiles, channels).
        cpu: what to compile for.
        threads: the most threads.
    """
    # --- algorithm
    c, x, y, n, j, i = (hl.Var(name) for name in "cxynji")
    image, down, out = part_input("image", source, format_), hl.Func("down"), hl.Func("v")
    bt, points, tile = TRANSFORMS[op.tile].bt, op.points, op.tile
    down[c, x, y, n, j, i] = _row_of(bt, i, [image[c, tile * x + j, tile * y + k, n] for k in range(points)])
    out[c, x, y, n, j, i] = _row_of(bt, j, [hl.Expr(down[c, x, y, n, k, i]) for k in range(points)])
    # --- schedule
    fix_part_output(out, v)
    c_out, tail = hl.Var("c_out"), _tail(v.shape[-1], cpu)
    out.split(c, c_out, c, cpu.lanes, tail).vectorize(c).reorder(c, i, j, c_out, x, y, n).unroll(i).unroll(j)
    down.compute_at(out, c_out).align_storage(c, cpu.lanes).vectorize(c, cpu.lanes, tail).unroll(i).unroll(j)
    _share_columns(out, x, v.shape[-2], threads)
    return Pipeline(out, (image,))


def product(v: Array, weight: Array, m: Array, s: TileSchedule, cpu: Cpu, threads: int) -> Pipeline:
    """M = V U for each point.

    Args:
        v: (points, tiles, inputs).
        weight: (points, outputs / panel, inputs, panel).
        m: (points, tiles, outputs).
        s: the register tile.
        cpu: what to compile for.
        threads: the most threads.
    """
    points, tiles, inputs = v.shape
    outputs, floats = m.shape[-1], Floats(cpu.lanes)
    left, right = part_input("v", v, FLOAT32), part_input("weight", weight, FLOAT32)
    n, p, out = hl.Var("n"), hl.Var("p"), hl.Func("m")
    out[n, hl.Var("t"), p] = hl.undef(hl.Float(32))
    for number, band in enumerate(bands_of(tiles, s)):
        # --- algorithm
        t = hl.RDom([(band.start, band.rows)], f"band{number}").x
        summation = Summation(
            suffix=f"_{number}",
            others=[hl.Var("p")],
            terms=inputs,
            schedule=s,
            start=lambda n, p: floats.zero,
            weight=right,
            panel=s.panel * cpu.lanes,
            source=left,
            place=lambda t, others, term, window: [term, t, others[0]],
            groups=1,
        )
        total = floats.sums(summation)
        out[n, t, p] = total.total[n, t, p]
        # --- schedule
        n_out, n_in, t_out, t_in = hl.Var("n_out"), hl.Var("n_in"), hl.RVar("t_out"), hl.RVar("t_in")
        stage = out.update(number)
        stage.split(n, n_out, n_in, s.vectors * cpu.lanes, hl.TailStrategy.GuardWithIf)
        stage.split(t, t_out, t_in, band.tile).reorder(n_in, t_in, t_out, n_out, p)
        stage.vectorize(n_in, cpu.lanes).unroll(t_in)
        share_tiles(stage, p, points, points * band.rows * inputs * outputs, threads)
        total.schedule(out, t_out, band)
    fix_part_output(out, m)
    return Pipeline(out, (left, right))


def epilogue(
    op: Winograd2d,
    types: Sequence[TensorType],
    m: Array,
    bias: Array | None,
    residual: Array | None,
    target: Array,
    cpu: Cpu,
    threads: int,
) -> Pipeline:
    """y = activation(A^T M A + bias + residual) of all tiles.

    Args:
        op: what is computed.
        types: of the op's inputs, then of its output.
        m: (points, points, images, rows of tiles, columns of tiles, channels).
        bias: (channels,).
        residual: as `target`.
        target: (images, rows, columns, channels): the part of the output that the tiles cover.
        cpu: what to compile for.
        threads: the most threads.
    """
    # --- algorithm
    c, x, y, n, i, j = (hl.Var(name) for name in "cxynij")
    source, across, tiles, out = part_input("m", m, FLOAT32), hl.Func("across"), hl.Func("tiles"), hl.Func("y")
    at, tile = TRANSFORMS[op.tile].at, op.tile
    across[c, x, y, n, j, i] = _row_of(at, i, [source[c, x, y, n, j, k] for k in range(op.points)])
    tiles[c, x, y, n, j, i] = _row_of(at, j, [hl.Expr(across[c, x, y, n, k, i]) for k in range(op.points)])
    operands = (("bias", bias, op.bias_index), ("residual", residual, op.residual_index))
    given = {name: part_input(name, a, types[index].format) for name, a, index in operands if a is not None}
    out[c, x, y, n] = finish(
        hl.Expr(tiles[c, x // tile, y // tile, n, x % tile, y % tile]),
        op.activation,
        types[-1].format,
        bias=given["bias"][c] if "bias" in given else None,
        residual=given["residual"][c, x, y, n] if "residual" in given else None,
    )
    # --- schedule
    fix_part_output(out, target)
    c_out, x_out, y_out = hl.Var("c_out"), hl.Var("x_out"), hl.Var("y_out")
    guard, tail = hl.TailStrategy.GuardWithIf, _tail(target.shape[-1], cpu)
    out.split(c, c_out, c, cpu.lanes, tail).vectorize(c)
    out.split(x, x_out, x, tile, guard).split(y, y_out, y, tile, guard)
    out.reorder(c, x, y, c_out, x_out, y_out, n).unroll(x).unroll(y)
    for func in (across, tiles):
        func.compute_at(out, c_out).align_storage(c, cpu.lanes).vectorize(c, cpu.lanes, tail).unroll(i).unroll(j)
    tiles.bound_extent(j, tile).bound_extent(i, tile)
    _share_columns(out, x_out, m.shape[-2], threads)
    return Pipeline(out, (source, *given.values()))


def zeros_around(y: Array, format_: NumberFormat, halo: Sides, cpu: Cpu) -> Pipeline:
    """Zeros in the halo of the images of y (batch, height, width, channels in memory); the rest stays as it is."""
    c, n, out = hl.Var("c"), hl.Var("n"), hl.Func("halo")
    out[c, hl.Var("x"), hl.Var("y"), n] = hl.undef(storage_type(format_))
    zero_halo(out, [c], n, halo, y.shape, 0, cpu.lanes)
    fix_part_output(out, y)
    return Pipeline(out, ())


def _row_of(matrix: Sequence[Sequence[float]], row: hl.Var, terms: Sequence[hl.Expr]) -> hl.Expr:
    """Row `row` of a matrix times a vector: after unrolling a sum of the terms that are not multiplied by 0."""
    return hl.mux(row, [_combination(coefficients, terms) for coefficients in matrix])


def _combination(coefficients: Sequence[float], terms: Sequence[hl.Expr]) -> hl.Expr:
    used = [(a, term) for a, term in zip(coefficients, terms, strict=True) if a]
    first, *rest = sorted(used, key=lambda pair: pair[0] != 1)
    total = first[1] if first[0] == 1 else hl.f32(float(first[0])) * first[1]
    for a, term in rest:
        total = total + term if a == 1 else total - term if a == -1 else total + hl.f32(float(a)) * term
    return total


def _tail(channels: int, cpu: Cpu) -> hl.TailStrategy:
    """No memory may be read or written beyond the channels."""
    return hl.TailStrategy.GuardWithIf if channels % cpu.lanes else hl.TailStrategy.RoundUp


def _share_columns(func: hl.Func, column: hl.Var, columns: int, threads: int) -> None:
    """Give each thread a run of the columns of tiles."""
    if threads > 1 and columns >= threads:
        chunk = hl.Var("chunk")
        func.split(column, chunk, column, -(-columns // threads), hl.TailStrategy.GuardWithIf)
        func.parallel(chunk)
