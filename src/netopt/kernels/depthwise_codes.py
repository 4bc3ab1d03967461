"""Depthwise convolutions of codes: whole numbers, summed in 32 bits, or where these are too few in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import halide as hl

from netopt.kernels.depthwise import Depthwise
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.code_epilogue import epilogue_of
from netopt.kernels.parts.conv2d_size import Conv2dSchedule
from netopt.kernels.parts.epilogue import Epilogue
from netopt.kernels.parts.integer_product import MOST, CodeProduct, WideCodeProduct
from netopt.kernels.parts.requantize import OnCodes, Requantization
from netopt.numerics import NumberFormat, Shape
from netopt.ops import Conv2d
from netopt.ops.epilogue import EpilogueOp


class CodesDepthwise(Depthwise):
    """See the module."""

    def __init__(self, problem: Problem[Conv2d], cpu: Cpu) -> None:
        super().__init__(problem, cpu)
        is_wide, stored = Requantization.of(problem).largest >= MOST, problem.inputs[1].format
        product = WideCodeProduct(cpu.lanes, stored) if is_wide else CodeProduct(cpu.lanes, stored)
        self.product, self.on = product, OnCodes(problem, product)

    def weight_parts(self, s: Conv2dSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        return {**super().weight_parts(s), **self.on.parts(self.vector_shape(s))}

    def pack_weight(self, s: Conv2dSchedule, value: Array) -> Sequence[Array]:
        return [*super().pack_weight(s, value), *self.on.pack(value, 1, self.vector_shape(s))]

    def start(self, epilogue: Epilogue, vector: list[hl.Expr]) -> hl.Expr:
        return self.on.begin(epilogue.inputs, vector)

    def epilogue(self, inputs: Mapping[str, Source], op: EpilogueOp, format_: NumberFormat, cpu: Cpu) -> Epilogue:
        return epilogue_of(self.on, inputs)

    def term(self, inputs: Mapping[str, Source], where: list[hl.Expr], there: list[hl.Expr]) -> hl.Expr:
        product = self.product
        assert isinstance(product, CodeProduct | WideCodeProduct)
        return product.multiply(inputs["weight"], where, inputs["x"], there)
