"""Transposed convolutions: one dense convolution for each phase of the strides, each writing every stride-th pixel.

No zeros are multiplied, and nothing is added into memory: each output is summed in a register tile, as in conv2d.py.
Weights are packed (groups, outputs / panel, kernel elements in the order of the phases, inputs, panel).

Seen on one core of an AMD EPYC (Zen 5, AVX-512), GMAC/s at batch 1; PyTorch 2.13, channels last, in the same
run:

    input         kernel  stride  outputs  netopt  PyTorch
    64 x 28 x 28  4 x 4   2       64       127     60
    128 x 14 x 14 2 x 2   2       64       131     78
    64 x 28 x 28  3 x 3   1       64       140     123
    32 x 28 x 28  4 x 4   2       3        25      13

Code and the time to compile grow with the number of phases, stride x stride. Groups of one channel each use one lane
of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.epilogue import Epilogue, Place
from netopt.kernels.parts.panels import pack_panels, unpack_panels
from netopt.kernels.parts.product import Floats, Summation
from netopt.kernels.parts.spatial import channels_last, zero_halo
from netopt.kernels.parts.tile import Band, TileSchedule, bands_of, share_tiles, tile_schedules
from netopt.kernels.parts.tile_sum import Sum
from netopt.kernels.parts.tiled import Tiled, TiledKernel
from netopt.numerics import NumberFormat, Shape
from netopt.ops import ConvTranspose2d
from netopt.ops.conv_transpose2d import Phase


class ConvTranspose2dKernel(TiledKernel[ConvTranspose2d, TileSchedule]):
    """See the module."""

    op = ConvTranspose2d

    def tiled(self, problem: Problem[ConvTranspose2d], cpu: Cpu) -> TiledPhases:
        return TiledPhases(problem, cpu)

    def schedules(self, problem: Problem[ConvTranspose2d], cpu: Cpu) -> Sequence[TileSchedule]:
        size = self.tiled(problem, cpu)
        return tile_schedules(size.columns[0].count, size.outputs, cpu)

    def packing(self, problem: Problem[ConvTranspose2d], schedule: TileSchedule) -> tuple[int, ...]:
        return tuple(_order(_phases(problem), problem.inputs[1].shape[2:]))


def _phases(problem: Problem[ConvTranspose2d]) -> tuple[Sequence[Phase], Sequence[Phase]]:
    """The phases along the height, and along the width."""
    x, weight = problem.inputs[:2]
    rows, columns = (problem.op.phases(axis, x.shape[axis + 2], weight.shape[axis + 2]) for axis in (0, 1))
    return rows, columns


def _order(phases: tuple[Sequence[Phase], Sequence[Phase]], kernel: Shape) -> list[int]:
    """The elements of the kernel, numbered row by row, phase by phase; last those that no phase reads.

    The latter only reach what is cut off.
    """
    height, width = kernel
    read = [y * width + x for rows in phases[0] for columns in phases[1] for y in rows.taps for x in columns.taps]
    return [*read, *(element for element in range(height * width) if element not in read)]


class TiledPhases(Tiled[TileSchedule]):
    """A transposed convolution: the output has an update for each band of each phase."""

    def __init__(self, problem: Problem[ConvTranspose2d], cpu: Cpu) -> None:
        self.op = op = problem.op
        x, weight = problem.inputs[:2]
        self.product = Floats(cpu.lanes, weight.format)
        self.groups, self.inputs, self.outputs = op.groups, weight.shape[0] // op.groups, weight.shape[1]
        self.batch, (self.rows, self.columns) = x.shape[0], _phases(problem)
        self.order = _order((self.rows, self.columns), weight.shape[2:])
        residual = problem.inputs[op.residual_index] if op.has_residual else problem.output
        types = (x, problem.output, residual)
        self.source, self.target, self.residual = (channels_last(type_).halo for type_ in types)
        self.source_shape, self._target_shape, self.residual_shape = (
            self._grouped(channels_last(type_).physical(type_.shape)) for type_ in types
        )

    def _grouped(self, shape: Shape) -> Shape:
        return (*shape[:3], self.groups, shape[3] // self.groups)

    def target_shape(self, outputs: int) -> Shape:
        return self._target_shape

    def weight_parts(self, s: TileSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        panel = s.panel * self.product.lanes
        shape = (self.groups, self.padded(s) // panel, len(self.order), self.inputs, panel)
        return {"weight": (shape, self.product.weight_format)}

    def pack_weight(self, s: TileSchedule, value: Array) -> Sequence[Array]:
        by_tap = value.reshape(self.groups, self.inputs, self.outputs, -1)[..., self.order]
        return [pack_panels(by_tap.transpose(0, 2, 3, 1), s.panel * self.product.lanes, self.padded(s))]

    def unpack_weight(self, packed: Array) -> Array:
        by_tap = unpack_panels(packed, self.outputs, self.inputs).transpose(0, 3, 1, 2)
        value = np.empty_like(by_tap)
        value[..., self.order] = by_tap
        return value

    def build(
        self, inputs: Mapping[str, Source], epilogue: Epilogue, s: TileSchedule, cpu: Cpu, threads: int
    ) -> hl.Func:
        c, g, n, out = hl.Var("c"), hl.Var("g"), hl.Var("n"), hl.Func("out")
        out[c, g, hl.Var("x"), hl.Var("y"), n] = hl.undef(epilogue.type)
        number, first_tap = 0, 0
        for rows in self.rows:
            for columns in self.columns:
                for band in bands_of(columns.count, s):
                    phase = _Phase(self, number, rows, columns, band, first_tap)
                    phase.add_to(out, [c, g, n], inputs, epilogue, s, threads)
                    number += 1
                first_tap += len(rows.taps) * len(columns.taps)
        zero_halo(out, [c, g], n, self.target, self._target_shape, number, cpu.lanes)
        return out


class _Phase:
    """One band of one phase: an update of the output."""

    def __init__(
        self, tiled: TiledPhases, number: int, rows: Phase, columns: Phase, band: Band, first_tap: int
    ) -> None:
        self.tiled, self.number, self.rows, self.columns = tiled, number, rows, columns
        self.band, self.first_tap, self.taps = band, first_tap, len(rows.taps) * len(columns.taps)

    def add_to(
        self,
        out: hl.Func,
        coordinates: Sequence[hl.Var],
        inputs: Mapping[str, Source],
        epilogue: Epilogue,
        s: TileSchedule,
        threads: int,
    ) -> None:
        """Define these pixels of the output, of channels, groups and images, and how they are computed."""
        # --- algorithm
        tiled, band, lanes, (c, g, n) = self.tiled, self.band, self.tiled.product.lanes, coordinates
        domain = hl.RDom([(band.start, band.rows), (0, self.rows.count)], f"band{self.number}")
        x, y = domain.x, domain.y
        sums = self._sums(inputs, epilogue, s) if self.taps else None
        total = self._nothing(epilogue) if sums is None else sums.total
        after = epilogue.of_band(f"_{self.number}", total, self._place, 3, has_begun=True)
        column, row = self._pixel(x, y)
        out[c, g, column + tiled.target[2], row + tiled.target[0], n] = after.value(c, x, g, y, n)
        # --- schedule
        c_out, c_in, tile = hl.Var("c_out"), hl.Var("c_in"), s.vectors * lanes
        x_out, x_in = hl.RVar("x_out"), hl.RVar("x_in")
        stage = out.update(self.number)
        stage.split(c, c_out, c_in, tile, hl.TailStrategy.GuardWithIf).split(x, x_out, x_in, band.block)
        stage.reorder(c_in, x_in, x_out, y, n, c_out, g)
        after.schedule(stage, c_in, out, x_out, lanes)
        if sums is None:
            return
        if band.block == band.tile:
            stage.unroll(x_in)
        work = band.rows * self.rows.count * tiled.batch * tiled.outputs * tiled.inputs * self.taps
        share_tiles(stage, c_out, -(-tiled.outputs // tile), work, threads)
        sums.schedule(out, x_out, band)

    def _sums(self, inputs: Mapping[str, Source], epilogue: Epilogue, s: TileSchedule) -> Sum:
        tiled, columns = self.tiled, self.columns
        top, _, left, _ = tiled.source

        def place(x: hl.Expr, others: Sequence[hl.Expr], term: hl.Expr, window: Sequence[hl.Expr]) -> list[hl.Expr]:
            g, y, n = others
            column = x + window[0] * columns.step + (columns.start + left)
            row = y + window[1] * self.rows.step + (self.rows.start + top)
            return [term, g, column, row, n]

        def taps(window: Sequence[hl.Expr]) -> list[hl.Expr]:
            return [self.first_tap + window[1] * len(columns.taps) + window[0]]

        summation = Summation(
            suffix=f"_{self.number}",
            others=[hl.Var("g"), hl.Var("y"), hl.Var("image")],
            terms=tiled.inputs,
            window=[len(columns.taps), len(self.rows.taps)],
            schedule=s,
            start=lambda c, g, y, n: tiled.start(epilogue, [c, g]),
            weight=inputs["weight"],
            panel=s.panel * tiled.product.lanes,
            source=inputs["x"],
            place=place,
            groups=1,
            taps=taps,
        )
        return tiled.product.sums(summation)

    def _nothing(self, epilogue: Epilogue) -> hl.Func:
        """The sum of no term."""
        c, others, total = hl.Var("c"), [hl.Var(name) for name in "xgyn"], hl.Func(f"total_{self.number}")
        total[[c, *others]] = self.tiled.start(epilogue, [c, others[1]])
        return total

    def _pixel(self, x: hl.Expr, y: hl.Expr) -> tuple[hl.Expr, hl.Expr]:
        """Where pixel (x, y) of the phase lies in the output."""
        height, width = self.tiled.op.stride
        return self.columns.first + width * x, self.rows.first + height * y

    def _place(self, c: hl.Expr, x: hl.Expr, g: hl.Expr, y: hl.Expr, n: hl.Expr) -> Place:
        (column, row), (top, _, left, _) = self._pixel(x, y), self.tiled.residual
        return Place([c, g], [c, g, column + left, row + top, n], (column, row))
