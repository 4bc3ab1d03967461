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

from collections.abc import Sequence

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source, storage_type
from netopt.kernels.machine.kernel import OnePipeline, Pipeline, Problem, fix_output, float_input
from netopt.kernels.parts.epilogue import finish
from netopt.kernels.parts.spatial import channels_last, zero_halo
from netopt.kernels.parts.tile import Band, TileSchedule, TileSum, bands_of, share_tiles, tile_schedules
from netopt.numerics import Shape
from netopt.ops import ConvTranspose2d
from netopt.ops.conv_transpose2d import Phase


class _Size:
    """The shapes of one transposed convolution, as the pipeline sees them."""

    def __init__(self, problem: Problem[ConvTranspose2d]) -> None:
        self.op = op = problem.op
        x, weight = problem.inputs[:2]
        self.groups, self.inputs, self.outputs = op.groups, weight.shape[0] // op.groups, weight.shape[1]
        self.batch, self.format = x.shape[0], problem.output.format
        self.rows, self.columns = (op.phases(axis, x.shape[axis + 2], weight.shape[axis + 2]) for axis in (0, 1))
        self.kernel = weight.shape[2:]
        layouts = [channels_last(type_) for type_ in (x, problem.output)]
        self.source, self.target = (layout.halo for layout in layouts)
        self.source_shape, self.target_shape = (
            self._grouped(layout.physical(type_.shape))
            for layout, type_ in zip(layouts, (x, problem.output), strict=True)
        )
        self.residual, self.residual_shape = self.target, self.target_shape
        if op.has_residual:
            residual = problem.inputs[op.residual_index]
            layout = channels_last(residual)
            self.residual, self.residual_shape = layout.halo, self._grouped(layout.physical(residual.shape))

    def _grouped(self, shape: Shape) -> Shape:
        return (*shape[:3], self.groups, shape[3] // self.groups)

    def order(self) -> list[int]:
        """The elements of the kernel, numbered row by row, phase by phase; last those that no phase reads.

        The latter only reach what is cut off.
        """
        height, width = self.kernel
        read = [
            y * width + x for rows in self.rows for columns in self.columns for y in rows.taps for x in columns.taps
        ]
        return [*read, *(element for element in range(height * width) if element not in read)]


class ConvTranspose2dKernel(OnePipeline[ConvTranspose2d, TileSchedule]):
    """See the module."""

    op = ConvTranspose2d

    def schedules(self, problem: Problem[ConvTranspose2d], cpu: Cpu) -> Sequence[TileSchedule]:
        size = _Size(problem)
        return tile_schedules(size.columns[0].count, size.outputs, cpu)

    def argument_shapes(self, problem: Problem[ConvTranspose2d], schedule: TileSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        size = _Size(problem)
        tile, panel = schedule.vectors * cpu.lanes, schedule.panel * cpu.lanes
        padded = -(-size.outputs // tile) * tile
        weight = (size.groups, padded // panel, len(size.order()), size.inputs, panel)
        result: list[Shape] = [size.source_shape, weight]
        if size.op.has_bias:
            result.append((size.groups, padded))
        if size.op.has_residual:
            result.append(size.residual_shape)
        return (*result, size.target_shape)

    def pack(
        self, problem: Problem[ConvTranspose2d], schedule: TileSchedule, cpu: Cpu, index: int, value: Array
    ) -> Array:
        shape = self.argument_shapes(problem, schedule, cpu)[index]
        size = _Size(problem)
        more = -size.outputs % (schedule.vectors * cpu.lanes)
        if index == 2:
            return np.pad(value.reshape(size.groups, size.outputs), [(0, 0), (0, more)])
        groups, panels, taps, inputs, panel = shape
        grouped = value.reshape(groups, inputs, size.outputs, -1)[..., size.order()]
        padded = np.pad(grouped, [(0, 0), (0, 0), (0, more), (0, 0)])
        split = padded.reshape(groups, inputs, panels, panel, taps)
        return np.ascontiguousarray(split.transpose(0, 2, 4, 1, 3))

    def packing(self, problem: Problem[ConvTranspose2d], schedule: TileSchedule) -> tuple[int, ...]:
        return tuple(_Size(problem).order())

    def unpack(
        self, problem: Problem[ConvTranspose2d], schedule: TileSchedule, cpu: Cpu, index: int, packed: Array
    ) -> Array:
        size, shape = _Size(problem), problem.inputs[index].shape
        if index == 2:
            return np.ascontiguousarray(packed[:, : size.outputs]).reshape(shape)
        groups, panels, taps, inputs, panel = packed.shape
        grouped = packed.transpose(0, 3, 1, 4, 2).reshape(groups, inputs, panels * panel, taps)
        value = np.empty((groups, inputs, size.outputs, taps), np.float32)
        value[..., size.order()] = grouped[:, :, : size.outputs]
        return value.reshape(shape)

    def build(self, problem: Problem[ConvTranspose2d], schedule: TileSchedule, cpu: Cpu) -> Pipeline:
        names = ["x", "weight", *["bias"] * problem.op.has_bias, *["residual"] * problem.op.has_residual]
        *shapes, output = self.argument_shapes(problem, schedule, cpu)
        inputs = {n: float_input(n, shape, at) for n, shape, at in zip(names, shapes, problem.inputs, strict=True)}
        pipeline = _Phases(inputs, _Size(problem), schedule, cpu, problem.threads)
        fix_output(pipeline.out, output, problem.output)
        return Pipeline(pipeline.out, tuple(inputs.values()))


class _Phases:
    """The output, with updates for each phase and band."""

    def __init__(self, inputs: dict[str, Source], size: _Size, schedule: TileSchedule, cpu: Cpu, threads: int) -> None:
        self.inputs, self.size, self.schedule, self.cpu, self.threads = inputs, size, schedule, cpu, threads
        self.c, self.g, self.n, self.out = hl.Var("c"), hl.Var("g"), hl.Var("n"), hl.Func("out")
        self.out[self.c, self.g, hl.Var("x"), hl.Var("y"), self.n] = hl.undef(storage_type(size.format))
        self.updates, first_tap = 0, 0
        for rows in size.rows:
            for columns in size.columns:
                for band in bands_of(columns.count, schedule):
                    self._define(rows, columns, band, first_tap)
                first_tap += len(rows.taps) * len(columns.taps)
        zero_halo(self.out, [self.c, self.g], self.n, size.target, size.target_shape, self.updates, cpu.lanes)

    def _define(self, rows: Phase, columns: Phase, band: Band, first_tap: int) -> None:
        # --- algorithm
        size, c, g, n = self.size, self.c, self.g, self.n
        domain = hl.RDom([(band.start, band.rows), (0, rows.count)], f"band{self.updates}")
        x, y = domain.x, domain.y
        # Where pixel (x, y) of the phase lies in the output.
        column, row = columns.first + size.op.stride[1] * x, rows.first + size.op.stride[0] * y
        product = self._product(rows, columns, first_tap) if rows.taps and columns.taps else None
        total = self._start(c, g) if product is None else hl.Expr(product.total[c, x, g, y, n])
        place = [c, g, column + size.residual[2], row + size.residual[0], n]
        self.out[c, g, column + size.target[2], row + size.target[0], n] = finish(
            total,
            size.op.activation,
            size.format,
            residual=self.inputs["residual"][place] if size.op.has_residual else None,
        )
        # --- schedule
        c_out, c_in, tile, lanes = hl.Var("c_out"), hl.Var("c_in"), self._tile(), self.cpu.lanes
        x_out, x_in = hl.RVar("x_out"), hl.RVar("x_in")
        stage = self.out.update(self.updates)
        stage.split(c, c_out, c_in, tile, hl.TailStrategy.GuardWithIf).split(x, x_out, x_in, band.block)
        stage.reorder(c_in, x_in, x_out, y, n, c_out, g).vectorize(c_in, lanes)
        self.updates += 1
        if product is None:
            return
        if band.block == band.tile:
            stage.unroll(x_in)
        work = band.rows * rows.count * size.batch * size.outputs * size.inputs * len(rows.taps) * len(columns.taps)
        share_tiles(stage, c_out, -(-size.outputs // tile), work, self.threads)
        product.schedule(self.out, x_out, band)

    def _tile(self) -> int:
        return self.schedule.vectors * self.cpu.lanes

    def _start(self, c: hl.Expr, g: hl.Expr) -> hl.Expr:
        return self.inputs["bias"][c, g] if "bias" in self.inputs else hl.f32(0.0)

    def _product(self, rows: Phase, columns: Phase, first_tap: int) -> TileSum:
        top, _, left, _ = self.size.source
        weight, source, panel = self.inputs["weight"], self.inputs["x"], self.schedule.panel * self.cpu.lanes

        def term(c: hl.Var, x: hl.Var, others: Sequence[hl.Var], k: Sequence[hl.Expr]) -> hl.Expr:
            g, y, n = others
            column = x + k[1] * columns.step + (columns.start + left)
            row = y + k[2] * rows.step + (rows.start + top)
            tap = first_tap + k[2] * len(columns.taps) + k[1]
            return weight[c % panel, k[0], tap, c // panel, g] * source[k[0], g, column, row, n]

        return TileSum(
            f"_{self.updates}",
            [hl.Var("g"), hl.Var("y"), hl.Var("image")],
            [self.size.inputs, len(columns.taps), len(rows.taps)],
            self.schedule,
            self.cpu.lanes,
            lambda c, g, y, n: self._start(c, g),
            term,
        )
