"""A convolution in register tiles of any product: pixels of a line, or of several short ones, x output channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.conv2d_size import Conv2dSchedule, ImageSize, Strip, source_at, strips_of
from netopt.kernels.parts.epilogue import Epilogue, Place
from netopt.kernels.parts.panels import pack_panels, unpack_panels
from netopt.kernels.parts.product import Product, Summation
from netopt.kernels.parts.spatial import zero_halo
from netopt.kernels.parts.tile import Band, bands_of, share_evenly
from netopt.kernels.parts.tiled import Tiled
from netopt.numerics import NumberFormat, Shape
from netopt.ops.conv2d import Convolution


class TiledConv2d(Tiled[Conv2dSchedule]):
    """A convolution; weights are packed (groups, outputs / panel, kernel height, kernel width, steps, panel).

    With several neighbours in a step these come last; where they go along the rows of the window, a row is one run of
    terms.
    """

    def __init__(self, problem: Problem[Convolution], product: Product) -> None:
        self.product, self.size = product, ImageSize(problem, product)
        size = self.size
        self.groups, self.outputs, self.kernel = size.groups, size.outputs, (size.kernel_height, size.columns)
        channels = product.stored_elements(size.inputs)
        self.source_shape = (*size.source_shape[:3], size.groups, channels)
        if size.along_rows:
            self.source_shape = (*size.source_shape[:2], size.source_shape[2] * size.inputs)
        self.residual_shape = (*size.residual_image, size.groups, size.outputs)

    def target_shape(self, outputs: int) -> Shape:
        return self.size.image(self.size.target_shape, outputs)

    def weight_parts(self, s: Conv2dSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        product, panel = self.product, s.panel * self.product.lanes
        neighbours = [product.neighbours] if product.neighbours > 1 else []
        terms = (product.steps(self.size.run), panel, *neighbours)
        return {"weight": ((self.groups, self.padded(s) // panel, *self.kernel, *terms), product.weight_format)}

    def by_group(self, value: Array) -> Array:
        """Weights as in the graph as (groups, outputs, kernel height, kernel width, inputs)."""
        return value.reshape(self.groups, self.outputs, *value.shape[1:]).transpose(0, 1, 3, 4, 2)

    def pack_weight(self, s: Conv2dSchedule, value: Array) -> Sequence[Array]:
        runs = self.by_group(value).reshape(self.groups, self.outputs, *self.kernel, self.size.run)
        panel = s.panel * self.product.lanes
        return [pack_panels(self.product.encoded(runs), panel, self.padded(s), self.product.neighbours)]

    def unpack_weight(self, packed: Array) -> Array:
        size, product = self.size, self.product
        panels = unpack_panels(packed, self.outputs, product.elements(size.run), product.neighbours)
        window = (size.kernel_height, size.kernel_width)
        terms = product.decoded(panels, size.run).reshape(self.groups, self.outputs, *window, size.inputs)
        return terms.transpose(0, 1, 4, 2, 3)

    def build(
        self, inputs: Mapping[str, Source], epilogue: Epilogue, s: Conv2dSchedule, cpu: Cpu, threads: int
    ) -> hl.Func:
        size, c, g, n, out = self.size, hl.Var("c"), hl.Var("g"), hl.Var("n"), hl.Func("out")
        out[c, g, hl.Var("x"), hl.Var("y"), n] = hl.undef(epilogue.type)
        parts = [(strip, b) for strip in strips_of(size, s.rows) for b in bands_of(strip.lines * size.width, s)]
        for number, (strip, band) in enumerate(parts):
            # --- algorithm
            domain = hl.RDom([(band.start, band.rows), (0, strip.count)], f"band{number}")
            x, y = domain.x, domain.y
            column, line = strip.pixel(x, y)
            sums = self.product.sums(self._summation(number, strip, inputs, epilogue, s))
            has_begun = self.product.begins_with_bias
            after = epilogue.of_band(f"_{number}", sums.total, partial(self._place, strip), 3, has_begun=has_begun)
            out[c, g, column + size.target[2], line + size.target[0], n] = after.value(c, x, g, y, n)
            # --- schedule
            tile = s.vectors * self.product.lanes
            c_out, c_in = hl.Var("c_out"), hl.Var("c_in")
            x_out, x_in = hl.RVar("x_out"), hl.RVar("x_in")
            stage = out.update(number)
            stage.split(c, c_out, c_in, tile // epilogue.outputs, hl.TailStrategy.GuardWithIf)
            stage.split(x, x_out, x_in, band.block)
            loops = [c_out, x_out, y, n] if s.pixels_first else [x_out, y, n, c_out]
            order = [c_in, x_in, *loops, g]
            stage.reorder(*order)
            if band.block == band.tile:
                stage.unroll(x_in)
            extents = [(c_out, -(-size.outputs // tile)), (y, strip.count), (x_out, band.rows // band.block)]
            share_evenly(stage, extents, order, self._work(strip, band), threads)
            sums.schedule(out, loops[0], band)
            sums.convert_at(out, x_out, size.run)
            if s.ahead:
                sums.prefetch(inputs["weight"].param, s.ahead)
            after.schedule(stage, c_in, out, loops[0], min(cpu.lanes, tile))
        shape = self.target_shape(epilogue.outputs)
        zero_halo(out, [c, g], n, size.target, shape, len(parts), cpu.lanes, epilogue.zero)
        return out

    def _summation(
        self, number: int, strip: Strip, inputs: Mapping[str, Source], epilogue: Epilogue, s: Conv2dSchedule
    ) -> Summation:
        size = self.size
        return Summation(
            suffix=f"_{number}",
            others=[hl.Var("g"), hl.Var("y"), hl.Var("image")],
            terms=size.run,
            window=[size.columns, size.kernel_height],
            schedule=s,
            start=lambda c, g, y, n: self.start(epilogue, [c, g]),
            weight=inputs["weight"],
            panel=s.panel * self.product.lanes,
            source=inputs["x"],
            place=partial(self._term, strip),
            groups=1,
        )

    def _work(self, strip: Strip, band: Band) -> int:
        """About what a band takes, in multiply-adds of floats."""
        size = self.size
        terms = band.rows * strip.count * size.batch * size.outputs * size.inputs * size.window
        return terms // self.product.per_multiply_add

    def _term(
        self, strip: Strip, x: hl.Expr, others: Sequence[hl.Expr], term: hl.Expr, window: Sequence[hl.Expr]
    ) -> list[hl.Expr]:
        """Where a term lies in the input: of a pixel, or of a row of the window."""
        (g, y, n), size = others, self.size
        column, row = source_at(size, *strip.pixel(x, y), *window)
        return [column * size.inputs + term, row, n] if size.along_rows else [term, g, column, row, n]

    def _place(self, strip: Strip, c: hl.Expr, x: hl.Expr, g: hl.Expr, y: hl.Expr, n: hl.Expr) -> Place:
        (column, line), (top, _, left, _) = strip.pixel(x, y), self.size.residual
        return Place([c, g], [c, g, column + left, line + top, n], (column, line))
