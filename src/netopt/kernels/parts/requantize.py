"""From sums of products of codes to what is stored: codes again, by shifts where that is exact, or floats.

A sum's unit stands for a step, that of x times that of the output's weights. With a power of two between it and the
step of what is written, rounding is floor(sum / 2^k + 1/2): an addition, which the sum begins with, and a shift. The
shifts are data beside the weights, so that layers of one shape share machine code, wherever their positions are.

Everything else is computed as the op's reference does it, in float64, where each step is exact or rounds the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import halide as hl
import numpy as np

from netopt.kernels.machine.formats import HALIDE, Array, Source, storage_type
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.epilogue import BandEpilogue, Epilogue, FloatEpilogue, Place, PlaceOf
from netopt.kernels.parts.integer_product import CodeProduct, WideCodeProduct, largest_code
from netopt.kernels.parts.panels import pad_outputs
from netopt.numerics import FLOAT32, INT32, CodeFormat, FixedPoint, NumberFormat, Shape
from netopt.ops import TensorType
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.on_codes import step_of_sums
from netopt.ops.pointwise import Pointwise

EpilogueT = TypeVar("EpilogueT", bound=EpilogueOp)
# Sums, with all that is added to them, must stay below.
_MOST = 2**31
_CLAMPS = ("relu", "hardtanh")


@dataclass(frozen=True)
class Requantization:
    """How the sums of a layer become what it writes.

    Attributes:
        by_shift: by whole numbers alone.
        shifts: by how many bits the sum of each output, or of all, is shifted.
        residual_shifts: by how many bits the residual is shifted to have the unit of the sums.
        largest: what no sum of products exceeds.
    """

    by_shift: bool
    shifts: tuple[int, ...]
    residual_shifts: tuple[int, ...]
    largest: int

    @classmethod
    def of(cls, problem: Problem[EpilogueT]) -> Requantization:
        """What the formats allow."""
        op, (x, weight), output = problem.op, problem.inputs[:2], problem.output
        assert isinstance(x.format, CodeFormat) and isinstance(weight.format, CodeFormat)
        terms = math.prod(weight.shape[1:])
        largest = terms * largest_code(x.format) * largest_code(weight.format)
        none = cls(False, (), (), largest)
        fixed = all(isinstance(format_, FixedPoint) for format_ in (x.format, weight.format, output.format))
        if not fixed or not _is_clamp(op.activation) or largest >= _MOST:
            return none
        units = _units(problem.inputs)
        assert isinstance(output.format, FixedPoint)
        shifts = tuple(unit - output.format.fractions[0] for unit in units)
        bias = problem.inputs[op.bias_index].format if op.has_bias else None
        if bias is not None and not isinstance(bias, CodeFormat):
            return none
        largest_bias = 2 ** (bias.bits - 1) if bias is not None else 0
        residual_shifts: tuple[int, ...] = ()
        largest_residual = 0
        if op.has_residual:
            residual = problem.inputs[op.residual_index].format
            if not isinstance(residual, FixedPoint):
                return none
            residual_shifts = tuple(unit - residual.fractions[0] for unit in units)
            largest_residual = largest_code(residual) << max(0, *residual_shifts)
        whole = largest + largest_bias + largest_residual + (1 << max(0, *shifts))
        fits = min(*shifts, *residual_shifts, 0) >= 0 and max(*shifts, *residual_shifts, 0) < 31 and whole < _MOST
        return cls(True, shifts, residual_shifts, largest) if fits else none


def _units(inputs: Sequence[TensorType]) -> tuple[int, ...]:
    """Fraction bits of the sums: one number, or one for each output."""
    x, weight = inputs[0].format, inputs[1].format
    assert isinstance(x, FixedPoint) and isinstance(weight, FixedPoint)
    return tuple(x.fractions[0] + fraction for fraction in weight.fractions)


def _is_clamp(activation: Pointwise | None) -> bool:
    return activation is None or activation.function in _CLAMPS


def without_positions(problem: Problem[EpilogueT]) -> Problem[EpilogueT]:
    """The problem that the machine code depends on: where positions are data, they are 0."""
    if not Requantization.of(problem).by_shift:
        return problem
    inputs = tuple(dataclasses.replace(type_, format=_without_position(type_.format)) for type_ in problem.inputs)
    output = dataclasses.replace(problem.output, format=_without_position(problem.output.format))
    op = problem.op
    if op.activation is not None and op.activation.function == "hardtanh":
        # The bounds, too, are data.
        op = cast(EpilogueT, op.with_other_activation(Pointwise("hardtanh", (0.0, 1.0))))
    return dataclasses.replace(problem, op=op, inputs=inputs, output=output)


def _without_position(format_: NumberFormat) -> NumberFormat:
    return FixedPoint(format_.bits, 0, format_.signed) if isinstance(format_, FixedPoint) else format_


class OnCodes:
    """What layers on codes pack beside their weights, whether they are dense or convolutions."""

    def __init__(self, problem: Problem[EpilogueT], product: CodeProduct | WideCodeProduct) -> None:
        self.problem, self.codes = problem, product
        self.how = Requantization.of(problem)

    def parts(self, shape: Shape) -> dict[str, tuple[Shape, NumberFormat]]:
        """What is packed beside the weights, where a vector of a number for each output has this shape."""
        bounds: dict[str, tuple[Shape, NumberFormat]] = {"bounds": ((2,), INT32)} if self.bounds is not None else {}
        return {**{name: (shape, format_) for name, format_ in self.vectors.items()}, **bounds}

    def pack(self, weights: Array, groups: int, shape: Shape) -> list[Array]:
        """The arrays of `parts`, for weights (groups x outputs, ...)."""
        packed = [
            pad_outputs(self.vector(name, weights, len(weights)), groups, shape[-1]).reshape(shape)
            for name in self.vectors
        ]
        return packed if self.bounds is None else [*packed, np.array(self.bounds, np.int32)]

    @property
    def vectors(self) -> Mapping[str, NumberFormat]:
        """What there is a number of for each output."""
        formats: dict[str, NumberFormat] = {}
        if self.how.by_shift:
            formats = {"begin": INT32, "shift": INT32}
            if self.problem.op.has_residual:
                formats["residual_shift"] = INT32
        else:
            formats = {"step": FLOAT32}
            if self.codes.offset:
                formats["begin"] = INT32
        return formats

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The codes that an activation clamps to, where they are data."""
        activation = self.problem.op.activation
        if not self.how.by_shift or activation is None or activation.function != "hardtanh":
            return None
        format_ = self.problem.output.format
        assert isinstance(format_, FixedPoint)
        low, high = (math.floor(bound * 2.0 ** format_.fractions[0] + 0.5) for bound in activation.parameters)
        codes = format_.codes
        return max(low, codes.start), min(high, codes.stop - 1)

    def vector(self, name: str, weights: Array, outputs: int) -> Array:
        """A number for each of all outputs; `weights` are (outputs, ...)."""
        if name == "step":
            return _spread(step_of_sums(self.problem.inputs), outputs).astype(np.float32)
        if name == "shift":
            return _spread(self.how.shifts, outputs).astype(np.int32)
        if name == "residual_shift":
            return _spread(self.how.residual_shifts, outputs).astype(np.int32)
        begin = np.zeros(outputs, np.int64)
        if self.codes.offset:
            begin -= self.codes.offset * weights.reshape(outputs, -1).astype(np.int64).sum(1)
        if self.how.by_shift:
            begin += (1 << _spread(self.how.shifts, outputs).astype(np.int64)) >> 1
        # Sums wrap around as these numbers do.
        return begin.astype(np.int32)

    def begin(self, inputs: Mapping[str, Source], vector: list[hl.Expr]) -> hl.Expr:
        """What a sum begins with."""
        total = self.codes.zero
        for name in ("begin", "bias"):
            if name in inputs and (name != "bias" or isinstance(inputs[name].format, CodeFormat)):
                total = total + hl.cast(total.type(), inputs[name].param[vector])
        return total


def _spread(values: Sequence[float], outputs: int) -> Array:
    return np.broadcast_to(np.array(values), (outputs,))


class ShiftEpilogue(Epilogue):
    """clamp((sum + (residual << r)) >> s): the sum has begun with bias and half a unit of what is written."""

    def __init__(self, inputs: Mapping[str, Source], activation: Pointwise | None, format_: FixedPoint) -> None:
        """See `Epilogue`."""
        super().__init__(inputs)
        self.activation, self.format, self.type = activation, format_, storage_type(format_)

    def of_band(self, suffix: str, total: hl.Func, place: PlaceOf, others: int, *, has_begun: bool) -> BandEpilogue:
        def value(*at: hl.Expr) -> hl.Expr:
            where = place(*at)
            whole = hl.Expr(total[at])
            if "residual" in self.inputs:
                residual = hl.i32(self.inputs["residual"].param[where.residual])
                whole = whole + (residual << hl.u32(self.inputs["residual_shift"].param[where.vector]))
            return self._clamped(whole >> hl.u32(self.inputs["shift"].param[where.vector]))

        return BandEpilogue(value)

    def _clamped(self, code: hl.Expr) -> hl.Expr:
        low, high = self.format.codes.start, self.format.codes.stop - 1
        if "bounds" in self.inputs:
            bounds = self.inputs["bounds"].param
            return hl.cast(self.type, hl.clamp(code, bounds[0], bounds[1]))
        if self.activation is not None:
            low = max(low, 0)
        return hl.cast(self.type, hl.clamp(code, low, high))


class WideEpilogue(Epilogue):
    """activation(sum step + bias + residual) as the reference computes it, in float64, rounded to codes."""

    def __init__(self, inputs: Mapping[str, Source], activation: Pointwise | None, format_: CodeFormat) -> None:
        """See `Epilogue`."""
        super().__init__(inputs)
        self.activation, self.format, self.type = activation, format_, storage_type(format_)
        self.zero = format_.zero

    def of_band(self, suffix: str, total: hl.Func, place: PlaceOf, others: int, *, has_begun: bool) -> BandEpilogue:
        def value(*at: hl.Expr) -> hl.Expr:
            where = place(*at)
            number = hl.f64(hl.Expr(total[at])) * hl.f64(self.inputs["step"].param[where.vector])
            bias = self.inputs.get("bias")
            if bias is not None and not isinstance(bias.format, CodeFormat):
                number = number + hl.f64(bias[where.vector])
            if "residual" in self.inputs:
                number = number + self.inputs["residual"].wide(where.residual)
            if self.activation is not None:
                low, high = (0.0, math.inf) if self.activation.function == "relu" else self.activation.parameters
                number = hl.clamp(number, hl.f64(low), hl.f64(min(high, 1e300)))
            return hl.strict_float(self.format.to_stored(number, HALIDE))

        return BandEpilogue(value)


def epilogue_of(on: OnCodes, inputs: Mapping[str, Source]) -> Epilogue:
    """What becomes of the sums."""
    op, format_ = on.problem.op, on.problem.output.format
    if on.how.by_shift:
        assert isinstance(format_, FixedPoint)
        return ShiftEpilogue(inputs, op.activation, format_)
    if isinstance(format_, CodeFormat) and _is_clamp(op.activation):
        return WideEpilogue(inputs, op.activation, format_)
    return _ToFloats(inputs, op.activation, format_)


class _ToFloats(FloatEpilogue):
    """activation(sum step + bias + residual) in float32, in the format of the output."""

    def __init__(self, inputs: Mapping[str, Source], activation: Pointwise | None, format_: NumberFormat) -> None:
        """See `Epilogue`."""
        super().__init__({**inputs, "scale": inputs["step"]}, activation, format_)

    def _vector(self, name: str, place: Place) -> hl.Expr | None:
        # Sums have begun with a bias of codes.
        is_added = name == "bias" and name in self.inputs and isinstance(self.inputs[name].format, CodeFormat)
        return None if is_added else super()._vector(name, place)
