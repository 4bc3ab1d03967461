"""Depthwise convolutions: one filter a channel, in register tiles of pixels x channels; see conv2d.py.

Vectors lie along the channels, and a window of up to 7 x 7 is unrolled. With a window of 1 x 1 (batch normalization
that no layer takes) and whole vectors of channels they run at the rate of a copy: 256 x 28 x 28 with relu in 14.7 us on
an AMD EPYC (Zen 5, AVX-512), where PyTorch copies in 14.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.conv2d_size import Conv2dSchedule, ImageSize, source_at
from netopt.kernels.parts.epilogue import Epilogue, Place
from netopt.kernels.parts.product import Floats, Product
from netopt.kernels.parts.spatial import zero_halo
from netopt.kernels.parts.tile import bands_of, is_avx512, share_evenly
from netopt.kernels.parts.tiled import Tiled
from netopt.numerics import NumberFormat, Shape
from netopt.ops import Conv2d

# Elements of a depthwise window that are written out at most (7 x 7), so that code and compile time stay bounded.
_UNROLLED_WINDOW = 49


def is_depthwise(problem: Problem[Conv2d]) -> bool:
    """Whether each channel has one filter of its own."""
    outputs, inputs = problem.inputs[1].shape[:2]
    return inputs == 1 and outputs == problem.op.groups > 1


class Depthwise(Tiled[Conv2dSchedule]):
    """A depthwise convolution; weights are packed (kernel height, kernel width, channels)."""

    def __init__(self, problem: Problem[Conv2d], cpu: Cpu) -> None:
        self.product: Product = Floats(cpu.lanes, problem.inputs[1].format)
        self.size = size = ImageSize(problem, self.product)
        self.groups, self.outputs = 1, size.groups
        self.source_shape, self.residual_shape = size.source_shape, (*size.residual_image, size.groups)

    def target_shape(self, outputs: int) -> Shape:
        return self.size.target_shape

    def vector_shape(self, s: Conv2dSchedule) -> Shape:
        return (self.outputs,)

    def weight_parts(self, s: Conv2dSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        return {"weight": ((self.size.kernel_height, self.size.kernel_width, self.outputs), self.product.weight_format)}

    def pack_weight(self, s: Conv2dSchedule, value: Array) -> Sequence[Array]:
        return [np.ascontiguousarray(value[:, 0].transpose(1, 2, 0))]

    def unpack_weight(self, packed: Array) -> Array:
        return packed.transpose(2, 0, 1)

    def schedules(self, cpu: Cpu) -> list[Conv2dSchedule]:
        """The table of schedules, the default first."""
        whole = self.outputs // cpu.lanes
        vectors = [v for v in (4, 2, 3, 1) if whole % v == 0] if whole else [1]
        heights = (4, 3, 2)
        if is_avx512(cpu) and self.size.window > 1:
            # Longer tiles of fewer channels: their inputs are shared along the line, and the window's weights stay in
            # registers.
            vectors.sort(key=lambda v: (v > 2, -v))
            heights = (7, 6, 4) if self.size.width % 7 == 0 else (6, 7, 4)
        table = [Conv2dSchedule(rows, v, 1) for v in vectors for rows in heights if rows <= self.size.width]
        return table or [Conv2dSchedule(self.size.width, vectors[0], 1)]

    def build(
        self, inputs: Mapping[str, Source], epilogue: Epilogue, s: Conv2dSchedule, cpu: Cpu, threads: int
    ) -> hl.Func:
        size, c, n, out = self.size, hl.Var("c"), hl.Var("n"), hl.Func("out")
        out[c, hl.Var("x"), hl.Var("y"), n] = hl.undef(epilogue.type)
        # What is left over of the channels is one shorter vector: no memory may be read beyond them.
        whole = self.outputs // cpu.lanes * cpu.lanes
        parts = [(0, whole, s.vectors, cpu.lanes), (whole, self.outputs - whole, 1, self.outputs - whole)]
        updates = 0
        for start, channels, vectors, lanes in parts:
            for band in bands_of(size.width, s) if channels else ():
                # --- algorithm
                columns, rows = (size.target[2] + band.start, band.rows), (size.target[0], size.height)
                tiles = hl.RDom([(start, channels), columns, rows], f"band{updates}")
                total = self._sum(f"total_{updates}", inputs, epilogue, vectors, lanes)
                at = [tiles[0], tiles[1] - size.target[2], tiles[2] - size.target[0], n]
                after = epilogue.of_band(f"_{updates}", total, self._place, 3, has_begun=True)
                out[tiles[0], tiles[1], tiles[2], n] = after.value(*at)
                # --- schedule
                c_out, c_in, x_out, x_in = (hl.RVar(name) for name in ("c_out", "c_in", "x_out", "x_in"))
                stage = out.update(updates)
                exact = hl.TailStrategy.GuardWithIf  # without remainders: no guard is needed
                stage.split(tiles[0], c_out, c_in, vectors * lanes, exact).split(
                    tiles[1], x_out, x_in, band.tile, exact
                )
                order = [c_in, x_in, x_out, tiles[2], c_out, n]
                stage.reorder(*order).vectorize(c_in, lanes).unroll(c_in).unroll(x_in)
                total.compute_at(out, x_out)
                work = band.rows * size.height * size.batch * channels * size.window
                loops = [(c_out, channels // (vectors * lanes)), (tiles[2], size.height)]
                share_evenly(stage, loops, order, work, threads)
                updates += 1
        zero_halo(out, [c], n, size.target, size.target_shape, updates, cpu.lanes, epilogue.zero)
        return out

    def _sum(self, name: str, inputs: Mapping[str, Source], epilogue: Epilogue, vectors: int, lanes: int) -> hl.Func:
        """The sums over the window of a tile, in registers."""
        # --- algorithm
        c, x, y, n, total = hl.Var("c"), hl.Var("x"), hl.Var("y"), hl.Var("n"), hl.Func(name)
        window = hl.RDom([(0, self.size.kernel_width), (0, self.size.kernel_height)], f"{name}_window")
        column, row = source_at(self.size, x, y, window.x, window.y)
        total[c, x, y, n] = self.start(epilogue, [c])
        total[c, x, y, n] += self.term(inputs, [c, window.x, window.y], [c, column, row, n])
        # --- schedule
        total.bound_extent(c, vectors * lanes).vectorize(c, lanes).unroll(c).unroll(x)
        update = total.update().reorder(c, x, window.x, window.y).vectorize(c, lanes).unroll(c).unroll(x)
        if self.size.window <= _UNROLLED_WINDOW:
            update.unroll(window.x).unroll(window.y)
        return total

    def term(self, inputs: Mapping[str, Source], where: list[hl.Expr], there: list[hl.Expr]) -> hl.Expr:
        """A weight times what it multiplies."""
        return inputs["weight"][where] * inputs["x"][there]

    def _place(self, c: hl.Expr, x: hl.Expr, y: hl.Expr, n: hl.Expr) -> Place:
        top, _, left, _ = self.size.residual
        return Place([c], [c, x + left, y + top, n], (x, y))
