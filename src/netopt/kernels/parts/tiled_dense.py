"""A matrix product in register tiles of any product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.epilogue import Epilogue, Place, Result
from netopt.kernels.parts.panels import pack_panels, unpack_panels
from netopt.kernels.parts.product import Product, Summation
from netopt.kernels.parts.tile import TileSchedule, bands_of, share_tiles
from netopt.kernels.parts.tiled import Tiled
from netopt.numerics import NumberFormat, Shape
from netopt.ops import BinaryDense, Dense


class TiledDense(Tiled[TileSchedule]):
    """The matrix product (rows, inputs) by (inputs, outputs).

    Weights are packed (outputs / panel, steps, panel), and neighbours if the product has several.
    """

    def __init__(self, problem: Problem[Dense | BinaryDense], product: Product) -> None:
        self.product, self.groups = product, 1
        self.outputs, self.inputs = problem.inputs[1].shape
        self.rows = problem.output.elements // self.outputs
        self.elements = product.elements(self.inputs)
        self.source_shape = (self.rows, product.stored_elements(self.inputs))
        self.residual_shape = (self.rows, self.outputs)

    @property
    def steps(self) -> int:
        """Steps along the inputs."""
        return self.product.steps(self.inputs)

    def target_shape(self, outputs: int) -> Shape:
        return (self.rows, -(-self.outputs // outputs))

    def vector_shape(self, s: TileSchedule) -> Shape:
        return (self.padded(s),)

    def weight_parts(self, s: TileSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        product, panel = self.product, s.panel * self.product.lanes
        neighbours = [product.neighbours] if product.neighbours > 1 else []
        shape = (self.padded(s) // panel, self.steps, panel, *neighbours)
        return {"weight": (shape, product.weight_format)}

    def pack_weight(self, s: TileSchedule, value: Array) -> Sequence[Array]:
        encoded, panel = self.product.encoded(value[None]), s.panel * self.product.lanes
        return [pack_panels(encoded, panel, self.padded(s), self.product.neighbours)[0]]

    def unpack_weight(self, packed: Array) -> Array:
        panels = unpack_panels(packed[None], self.outputs, self.elements, self.product.neighbours)
        return self.product.decoded(panels, self.inputs)

    def result(self, inputs: Mapping[str, Source]) -> Result | None:
        return self.product.result_of(self.inputs)

    def build(
        self, inputs: Mapping[str, Source], epilogue: Epilogue, s: TileSchedule, cpu: Cpu, threads: int
    ) -> hl.Func:
        product, tile = self.product, s.vectors * self.product.lanes
        n, out = hl.Var("n"), hl.Func("out")
        out[n, hl.Var("m")] = hl.undef(epilogue.type)
        for number, band in enumerate(bands_of(self.rows, s)):
            # --- algorithm
            m = hl.RDom([(band.start, band.rows)], f"band{number}").x
            summation = Summation(
                suffix=f"_{number}",
                terms=self.inputs,
                schedule=s,
                start=lambda n: self.start(epilogue, [n]),
                weight=inputs["weight"],
                panel=s.panel * product.lanes,
                source=inputs["x"],
                place=lambda m, others, term, window: [term, m],
                scales=inputs.get("group_scales"),
            )
            sums = product.sums(summation)
            after = epilogue.of_band(f"_{number}", sums.total, _place, 0, has_begun=product.begins_with_bias)
            out[n, m] = after.value(n, m)
            # --- schedule
            n_out, n_in = hl.Var("n_out"), hl.Var("n_in")
            m_out, m_in = hl.RVar("m_out"), hl.RVar("m_in")
            stage = out.update(number)
            stage.split(n, n_out, n_in, tile // epilogue.outputs, hl.TailStrategy.GuardWithIf)
            stage.split(m, m_out, m_in, band.block).reorder(n_in, m_in, m_out, n_out)
            if band.block == band.tile:
                stage.unroll(m_in)
            work = band.rows * self.inputs * self.outputs // product.per_multiply_add
            share_tiles(stage, n_out, -(-self.outputs // tile), work, threads)
            sums.schedule(out, m_out, band)
            sums.convert_at(out, m_out, self.inputs)
            after.schedule(stage, n_in, out, m_out, min(cpu.lanes, tile))
        return out


def _place(n: hl.Expr, m: hl.Expr) -> Place:
    return Place([n], [n, m])
