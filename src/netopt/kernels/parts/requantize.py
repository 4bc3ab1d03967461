"""How sums of products of codes become what is stored, and what is packed beside the weights for that.

A sum's unit stands for a step, that of x times that of the output's weights. With a power of two between it and the
step of what is written, rounding is floor(sum / 2^k + 1/2): an addition, which the sum begins with, and a shift.
Everything else is computed as the op's reference does it, in float64, where each step is exact or rounds the same.

Shifts and steps are data, so that layers of one shape share machine code, wherever their positions are. The code that
is written of a sum is in code_epilogue.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import halide as hl
import numpy as np

from netopt.kernels.machine.formats import Array, Source
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.integer_product import MOST, CodeProduct, WideCodeProduct, largest_code
from netopt.kernels.parts.panels import pad_outputs
from netopt.numerics import FLOAT32, INT32, Affine, CodeFormat, FixedPoint, NumberFormat, Shape
from netopt.ops import TensorType
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.pointwise import Pointwise

EpilogueT = TypeVar("EpilogueT", bound=EpilogueOp)
# Sums of products, with all that is added to them, must stay below.
_MOST_IN_ALL = 2**31
_CLAMPS = ("relu", "hardtanh")
_FORMATS: Mapping[str, NumberFormat] = {"i": INT32, "f": FLOAT32}


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
        if not fixed or not is_clamp(op.activation) or largest >= MOST:
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
        fits = (
            min(*shifts, *residual_shifts, 0) >= 0 and max(*shifts, *residual_shifts, 0) < 31 and whole < _MOST_IN_ALL
        )
        return cls(True, shifts, residual_shifts, largest) if fits else none


def _units(inputs: Sequence[TensorType]) -> tuple[int, ...]:
    """Fraction bits of the sums: one number, or one for each output."""
    x, weight = inputs[0].format, inputs[1].format
    assert isinstance(x, FixedPoint) and isinstance(weight, FixedPoint)
    return tuple(x.fractions[0] + fraction for fraction in weight.fractions)


def is_clamp(activation: Pointwise | None) -> bool:
    """Whether it takes codes to codes, as it takes numbers to numbers."""
    return activation is None or activation.function in _CLAMPS


def without_positions(problem: Problem[EpilogueT]) -> Problem[EpilogueT]:
    """The problem that the machine code depends on: where positions and steps are data, they are 0 and 1."""
    by_shift, op, output = Requantization.of(problem).by_shift, problem.op, problem.output
    inputs = list(problem.inputs)
    # Of sums that are not shifted x is affine, so that shifts of 0 do not make them so.
    inputs[0] = _without_position(inputs[0], to_affine=not by_shift)
    inputs[1] = _without_position(inputs[1])
    if op.has_bias:
        inputs[op.bias_index] = _without_position(inputs[op.bias_index])
    if by_shift or rounds_as_reference(problem):
        output = _without_position(output)
        if op.has_residual:
            inputs[op.residual_index] = _without_position(inputs[op.residual_index])
    if by_shift and op.activation is not None and op.activation.function == "hardtanh":
        # The bounds, too, are data.
        op = cast(EpilogueT, op.with_other_activation(Pointwise("hardtanh", (0.0, 1.0))))
    return dataclasses.replace(problem, op=op, inputs=tuple(inputs), output=output)


def rounds_as_reference(problem: Problem[EpilogueT]) -> bool:
    """Whether what is not shifted is computed in float64, to codes as the reference gives them; else in float32."""
    return isinstance(problem.output.format, CodeFormat) and is_clamp(problem.op.activation)


def _without_position(type_: TensorType, *, to_affine: bool = False) -> TensorType:
    format_: NumberFormat = type_.format
    if isinstance(format_, Affine) or (to_affine and isinstance(format_, FixedPoint)):
        format_ = Affine(format_.bits, 1.0, format_.zero, format_.is_signed)
    elif isinstance(format_, FixedPoint):
        format_ = FixedPoint(format_.bits, 0, format_.signed)
    return dataclasses.replace(type_, format=format_)


class OnCodes:
    """What layers on codes pack beside their weights, whether they are dense or convolutions."""

    def __init__(self, problem: Problem[EpilogueT], product: CodeProduct | WideCodeProduct) -> None:
        self.problem, self.codes = problem, product
        self.how = Requantization.of(problem)

    def parts(self, shape: Shape) -> dict[str, tuple[Shape, NumberFormat]]:
        """What is packed beside the weights, where a vector of a number for each output has this shape."""
        vectors = {name: (shape, format_) for name, format_ in self.vectors.items()}
        return {**vectors, **{name: (value.shape, _FORMATS[value.dtype.kind]) for name, value in self.scalars.items()}}

    def pack(self, weights: Array, groups: int, shape: Shape) -> list[Array]:
        """The arrays of `parts`, for weights (groups x outputs, ...)."""
        packed = [
            pad_outputs(self.vector(name, weights, len(weights)), groups, shape[-1]).reshape(shape)
            for name in self.vectors
        ]
        return [*packed, *self.scalars.values()]

    @property
    def vectors(self) -> Mapping[str, NumberFormat]:
        """What there is a number of for each output."""
        formats: dict[str, NumberFormat] = {}
        if self.how.by_shift or self._offset:
            formats["begin"] = INT32
        if self.how.by_shift:
            formats["shift"] = INT32
            if self.problem.op.has_residual:
                formats["residual_shift"] = INT32
        else:
            formats["step"] = FLOAT32
        return formats

    @property
    def scalars(self) -> Mapping[str, Array]:
        """What there is of numbers for all outputs."""
        if not self.how.by_shift:
            return {"scales": self._scales}
        return {} if self.bounds is None else {"bounds": np.array(self.bounds, np.int32)}

    @property
    def _scales(self) -> Array:
        """The step of x, what a number is multiplied with or divided by to be written, the step of the residual."""
        op, inputs, written = self.problem.op, self.problem.inputs, self.problem.output.format
        formats = [inputs[0].format, written, inputs[op.residual_index].format if op.has_residual else FLOAT32]
        scales = [format_.steps[0] if isinstance(format_, CodeFormat) else 1.0 for format_ in formats]
        if isinstance(written, FixedPoint):
            scales[1] = 1.0 / scales[1]
        return np.array(scales, np.float32)

    @property
    def _offset(self) -> int:
        """How much larger, or smaller, than the code less that of 0 all codes of x are read."""
        x = self.problem.inputs[0].format
        assert isinstance(x, CodeFormat)
        return self.codes.offset + x.zero

    @property
    def begins_with_bias(self) -> bool:
        """Whether sums begin with the bias: codes, which fit into them."""
        op = self.problem.op
        bias = self.problem.inputs[op.bias_index].format if op.has_bias else None
        if not isinstance(bias, CodeFormat):
            return False
        is_wide = self.codes.zero.type().is_float()
        return is_wide or self.how.largest + largest_code(bias) < _MOST_IN_ALL

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The codes that an activation clamps to, where they are data."""
        activation = self.problem.op.activation
        if not self.how.by_shift or activation is None or activation.function != "hardtanh":
            return None
        format_ = self.problem.output.format
        assert isinstance(format_, FixedPoint)
        low, high = (math.floor(bound * 2.0 ** format_.fractions[0] + 0.5) for bound in activation.parameters)
        first, last = format_.codes.start, format_.codes.stop - 1
        return min(max(low, first), last), min(max(high, first), last)

    def vector(self, name: str, weights: Array, outputs: int) -> Array:
        """A number for each of all outputs; `weights` are (outputs, ...)."""
        if name == "step":
            weight = self.problem.inputs[1].format
            assert isinstance(weight, CodeFormat)
            return _spread(weight.steps, outputs).astype(np.float32)
        if name == "shift":
            return _spread(self.how.shifts, outputs).astype(np.int32)
        if name == "residual_shift":
            return _spread(self.how.residual_shifts, outputs).astype(np.int32)
        begin = np.zeros(outputs, np.int64)
        if self._offset:
            begin -= self._offset * weights.reshape(outputs, -1).astype(np.int64).sum(1)
        if self.how.by_shift:
            begin += (1 << _spread(self.how.shifts, outputs).astype(np.int64)) >> 1
        # Sums wrap around as these numbers do.
        return begin.astype(np.int32)

    def begin(self, inputs: Mapping[str, Source], vector: list[hl.Expr]) -> hl.Expr:
        """What a sum begins with."""
        total = self.codes.zero
        for name in ("begin", "bias"):
            if name in inputs and (name != "bias" or self.begins_with_bias):
                total = total + hl.cast(total.type(), inputs[name].param[vector])
        return total


def _spread(values: Sequence[float], outputs: int) -> Array:
    return np.broadcast_to(np.array(values), (outputs,))
