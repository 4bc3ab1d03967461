"""Kernels that multiply by packed weights in register tiles: what those of dense layers and of convolutions share."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Call, Kernel, Pipeline, Problem, fix_output, whole_input
from netopt.kernels.parts.epilogue import Epilogue, FloatEpilogue, Place, Result, SignEpilogue
from netopt.kernels.parts.joined import join, joined_bytes, parts_of
from netopt.kernels.parts.panels import pad_outputs
from netopt.kernels.parts.product import Product
from netopt.kernels.parts.requantize import without_positions
from netopt.kernels.parts.tile import TileSchedule
from netopt.numerics import SIGN_BITS, CodeFormat, NumberFormat, PartedFormat, Shape
from netopt.ops import TensorType
from netopt.ops.binary_epilogue import BinaryEpilogueOp
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.on_codes import multiplies_codes

EpilogueT = TypeVar("EpilogueT", bound=EpilogueOp)
TileS = TypeVar("TileS", bound=TileSchedule)


class Tiled(ABC, Generic[TileS]):
    """One op as a computation in register tiles of a product.

    Attributes:
        product: what is multiplied.
        groups, outputs: groups of outputs, and outputs in each.
        source_shape: of the first input in memory.
        residual_shape: of the residual in memory.
    """

    product: Product
    groups: int
    outputs: int
    source_shape: Shape
    residual_shape: Shape

    @abstractmethod
    def target_shape(self, outputs: int) -> Shape:
        """The shape of the output in memory, with so many outputs an element."""

    def padded(self, s: TileS) -> int:
        """Outputs of a group, with those that fill the last tile."""
        tile = s.vectors * self.product.lanes
        return -(-self.outputs // tile) * tile

    def vector_shape(self, s: TileS) -> Shape:
        """The shape of a packed bias, scale or threshold."""
        return (self.groups, self.padded(s))

    @abstractmethod
    def weight_parts(self, s: TileS) -> Mapping[str, tuple[Shape, NumberFormat]]:
        """What is packed of the weights, by the names that `build` finds it under: "weight" first."""

    @abstractmethod
    def pack_weight(self, s: TileS, value: Array) -> Sequence[Array]:
        """The weights, as in the graph, as `weight_parts`."""

    @abstractmethod
    def unpack_weight(self, packed: Array) -> Array:
        """The weights, of the first of the parts, in any shape."""

    def unpack_parts(self, packed: Sequence[Array], shape: Shape) -> Array:
        """The weights as `pack_weight` takes them, of what it gives; `shape` is that in the graph."""
        return np.ascontiguousarray(self.unpack_weight(packed[0])).reshape(shape)

    def start(self, epilogue: Epilogue, vector: list[hl.Expr]) -> hl.Expr:
        """What a sum begins with, of the output for which this is the place in vectors."""
        begin = epilogue.start(Place(vector, [])) if self.product.begins_with_bias else None
        return self.product.zero if begin is None else begin

    def result(self, inputs: Mapping[str, Source]) -> Result | None:
        """What is summed, of the total that a tile counts; None: the total."""
        return None

    def epilogue(self, inputs: Mapping[str, Source], op: EpilogueOp, format_: NumberFormat, cpu: Cpu) -> Epilogue:
        """What becomes of the sums, in the format of the output."""
        result = self.result(inputs)
        if _to_signs(op):
            return SignEpilogue(inputs, cpu.lanes, result)
        return FloatEpilogue(inputs, op.activation, format_, result)

    @abstractmethod
    def build(self, inputs: Mapping[str, Source], epilogue: Epilogue, s: TileS, cpu: Cpu, threads: int) -> hl.Func:
        """The pipeline."""


class TiledKernel(Kernel[EpilogueT, TileS]):
    """The kernel of an op with weights, which says how it is tiled.

    Weights of one bit, and codes, are packed with what belongs to them as bytes, whatever a pipeline reads them as.
    """

    @abstractmethod
    def tiled(self, problem: Problem[EpilogueT], cpu: Cpu) -> Tiled[TileS]:
        """The op as a computation in tiles."""

    def code_problem(self, problem: Problem[EpilogueT]) -> Problem[EpilogueT]:
        return without_positions(problem) if multiplies_codes(problem.inputs) else problem

    def packing(self, problem: Problem[EpilogueT], schedule: TileS) -> tuple[int, ...]:
        if not (multiplies_codes(problem.inputs) or isinstance(problem.inputs[1].format, PartedFormat)):
            return ()
        # What is packed beside the weights, or how they lie, depends on all formats.
        formats = [type_.format.to_json() for type_ in (*problem.inputs, problem.output)]
        return (schedule.panel, schedule.vectors, zlib.crc32(repr((problem.op, formats)).encode()))

    def argument_shapes(self, problem: Problem[EpilogueT], schedule: TileS, cpu: Cpu) -> tuple[Shape, ...]:
        tiled = self.tiled(problem, cpu)
        shapes = {"x": tiled.source_shape, "residual": tiled.residual_shape}
        kinds = _kinds(tiled, schedule)
        itemsize = problem.inputs[1].format.dtype.itemsize
        shapes["weight"] = (_bytes(kinds) // itemsize,) if _in_bytes(problem) else kinds[0][0]
        vector = tiled.vector_shape(schedule)
        inputs = (shapes.get(name, vector) for name in operand_names(problem.op))
        return (*inputs, tiled.target_shape(32 if _to_signs(problem.op) else 1))

    def pack(self, problem: Problem[EpilogueT], schedule: TileS, cpu: Cpu, index: int, value: Array) -> Array:
        tiled, name = self.tiled(problem, cpu), operand_names(problem.op)[index]
        shape = self.argument_shapes(problem, schedule, cpu)[index]
        if name == "weight":
            parts = tiled.pack_weight(schedule, value)
            return (
                _joined(parts).view(problem.inputs[1].format.dtype) if _in_bytes(problem) else parts[0].reshape(shape)
            )
        if name in ("x", "residual"):
            return value.reshape(shape)
        # Behind the last output everything counts as +1, whose bit is 0.
        fill = SignEpilogue.LOWEST if name == "threshold" else 0
        return pad_outputs(value, tiled.groups, shape[-1], fill).reshape(shape)

    def unpack(self, problem: Problem[EpilogueT], schedule: TileS, cpu: Cpu, index: int, packed: Array) -> Array:
        tiled, name = self.tiled(problem, cpu), operand_names(problem.op)[index]
        shape = problem.inputs[index].shape
        if name == "weight":
            kinds = _kinds(tiled, schedule)
            return tiled.unpack_parts(
                parts_of(packed.view(np.uint8), *kinds) if _in_bytes(problem) else [packed], shape
            )
        if name not in ("x", "residual"):
            packed = packed.reshape(tiled.groups, -1)[:, : tiled.outputs]
        return np.ascontiguousarray(packed).reshape(shape)

    def calls(
        self, problem: Problem[EpilogueT], schedule: TileS, cpu: Cpu, arrays: Sequence[Array], scratch: Array | None
    ) -> Sequence[Call]:
        problem = self.code_problem(problem)
        tiled = self.tiled(problem, cpu)
        x, weight, *rest = arrays
        parts = parts_of(weight.view(np.uint8), *_kinds(tiled, schedule)) if _in_bytes(problem) else [weight]
        seen = (tiled.product.view(x), *parts, *rest)
        return (Call("", lambda: self._pipeline(problem, tiled, schedule, cpu, seen), seen),)

    def _pipeline(
        self, problem: Problem[EpilogueT], tiled: Tiled[TileS], schedule: TileS, cpu: Cpu, arrays: Sequence[Array]
    ) -> Pipeline:
        op, source, rest = problem.op, problem.inputs[0], problem.inputs[2:]
        types = {"x": tiled.product.source_type(source)}
        types |= {name: TensorType(*kind) for name, kind in tiled.weight_parts(schedule).items()}
        types |= dict(zip(operand_names(op)[2:], rest, strict=True))
        *shapes, output = (array.shape for array in arrays)
        inputs = {n: whole_input(n, shape, at) for (n, at), shape in zip(types.items(), shapes, strict=True)}
        epilogue = tiled.epilogue(inputs, op, problem.output.format, cpu)
        out = tiled.build(inputs, epilogue, schedule, cpu, problem.threads)
        fix_output(out, output, None if _to_signs(op) else problem.output)
        return Pipeline(out, tuple(inputs.values()))


def operand_names(op: EpilogueOp) -> list[str]:
    """The inputs of an op with weights and an epilogue, in order."""
    names = ["x", "weight"]
    if isinstance(op, BinaryEpilogueOp):
        names += ["threshold"] * op.has_threshold + ["scale"] * op.has_scale
    return names + ["bias"] * op.has_bias + ["residual"] * op.has_residual


def _to_signs(op: EpilogueOp) -> bool:
    return isinstance(op, BinaryEpilogueOp) and op.has_threshold


def _in_bytes(problem: Problem[EpilogueOp]) -> bool:
    format_ = problem.inputs[1].format
    return format_ == SIGN_BITS or isinstance(format_, CodeFormat | PartedFormat)


_Kind = tuple[Shape, np.dtype[Any]]


def _kinds(tiled: Tiled[TileS], schedule: TileS) -> list[_Kind]:
    return [(shape, format_.dtype) for shape, format_ in tiled.weight_parts(schedule).values()]


def _bytes(kinds: Sequence[_Kind]) -> int:
    [(shape, dtype), *more] = kinds
    return joined_bytes(*kinds) if more else math.prod(shape) * dtype.itemsize


def _joined(parts: Sequence[Array]) -> Array:
    return join(parts) if len(parts) > 1 else parts[0].reshape(-1).view(np.uint8)
