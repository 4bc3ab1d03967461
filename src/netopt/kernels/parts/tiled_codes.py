"""Dense layers and convolutions of codes in register tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.code_epilogue import epilogue_of
from netopt.kernels.parts.conv2d_size import Conv2dSchedule
from netopt.kernels.parts.epilogue import Epilogue
from netopt.kernels.parts.integer_product import CodeProduct, WideCodeProduct, product_of_codes
from netopt.kernels.parts.requantize import OnCodes
from netopt.kernels.parts.tile import TileSchedule
from netopt.kernels.parts.tiled_conv2d import TiledConv2d
from netopt.kernels.parts.tiled_dense import TiledDense
from netopt.numerics import CodeFormat, NumberFormat, Shape
from netopt.ops import Conv2d, Dense
from netopt.ops.epilogue import EpilogueOp


def _product(problem: Problem[Conv2d] | Problem[Dense], cpu: Cpu) -> CodeProduct | WideCodeProduct:
    _, terms, *window = problem.inputs[1].shape
    x, weight = (type_.format for type_ in problem.inputs[:2])
    assert isinstance(x, CodeFormat) and isinstance(weight, CodeFormat)
    return product_of_codes(x, weight, terms, math.prod(window), cpu)


class CodesConv2d(TiledConv2d):
    """A convolution of codes."""

    product: CodeProduct | WideCodeProduct

    def __init__(self, problem: Problem[Conv2d], cpu: Cpu) -> None:
        product = _product(problem, cpu)
        self.on = OnCodes(problem, product)
        super().__init__(problem, product)

    def weight_parts(self, s: Conv2dSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        return {**super().weight_parts(s), **self.on.parts(self.vector_shape(s))}

    def pack_weight(self, s: Conv2dSchedule, value: Array) -> Sequence[Array]:
        return [*super().pack_weight(s, value), *self.on.pack(value, self.groups, self.vector_shape(s))]

    def start(self, epilogue: Epilogue, vector: list[hl.Expr]) -> hl.Expr:
        return self.on.begin(epilogue.inputs, vector)

    def epilogue(self, inputs: Mapping[str, Source], op: EpilogueOp, format_: NumberFormat, cpu: Cpu) -> Epilogue:
        return epilogue_of(self.on, inputs)


class CodesDense(TiledDense):
    """A dense layer of codes."""

    product: CodeProduct | WideCodeProduct

    def __init__(self, problem: Problem[Dense], cpu: Cpu) -> None:
        product = _product(problem, cpu)
        self.on = OnCodes(problem, product)
        super().__init__(problem, product)

    def weight_parts(self, s: TileSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        return {**super().weight_parts(s), **self.on.parts(self.vector_shape(s))}

    def pack_weight(self, s: TileSchedule, value: Array) -> Sequence[Array]:
        return [*super().pack_weight(s, value), *self.on.pack(value, self.groups, self.vector_shape(s))]

    def start(self, epilogue: Epilogue, vector: list[hl.Expr]) -> hl.Expr:
        return self.on.begin(epilogue.inputs, vector)

    def epilogue(self, inputs: Mapping[str, Source], op: EpilogueOp, format_: NumberFormat, cpu: Cpu) -> Epilogue:
        return epilogue_of(self.on, inputs)
