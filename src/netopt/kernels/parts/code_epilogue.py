"""What is written of sums of products of codes: codes again, by shifts or as the reference rounds them, or floats."""

from __future__ import annotations

import math
from collections.abc import Mapping

import halide as hl

from netopt.kernels.machine.formats import Source, storage_type
from netopt.kernels.parts.epilogue import BandEpilogue, Epilogue, FloatEpilogue, Place, PlaceOf
from netopt.kernels.parts.math import is_nan
from netopt.kernels.parts.requantize import OnCodes, rounds_as_reference
from netopt.numerics import CodeFormat, FixedPoint, NumberFormat
from netopt.ops.pointwise import Pointwise


def epilogue_of(on: OnCodes, inputs: Mapping[str, Source]) -> Epilogue:
    """What becomes of the sums."""
    op, format_ = on.problem.op, on.problem.output.format
    if on.how.by_shift:
        assert isinstance(format_, FixedPoint)
        return ShiftEpilogue(inputs, op.activation, format_)
    if rounds_as_reference(on.problem):
        assert isinstance(format_, CodeFormat)
        return WideEpilogue(inputs, op.activation, format_, has_begun=on.begins_with_bias)
    return ToFloats(inputs, op.activation, format_, has_begun=on.begins_with_bias)


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

    def __init__(
        self, inputs: Mapping[str, Source], activation: Pointwise | None, format_: CodeFormat, *, has_begun: bool
    ) -> None:
        """See `Epilogue`; `has_begun`: the sums have begun with the bias, if it is codes."""
        super().__init__(inputs)
        self.activation, self.format, self.type = activation, format_, storage_type(format_)
        self.zero, self.has_begun = format_.zero, has_begun

    def of_band(self, suffix: str, total: hl.Func, place: PlaceOf, others: int, *, has_begun: bool) -> BandEpilogue:
        def value(*at: hl.Expr) -> hl.Expr:
            where = place(*at)
            return hl.strict_float(self._code(self._number(hl.f64(hl.Expr(total[at])), where)))

        return BandEpilogue(value)

    def _number(self, whole: hl.Expr, where: Place) -> hl.Expr:
        """What is rounded, before the activation."""
        bias, residual = self.inputs.get("bias"), self.inputs.get("residual")
        if bias is not None and _is_codes(bias) and not self.has_begun:
            whole = whole + hl.f64(bias.param[where.vector])
        number = whole * (hl.f64(self.inputs["step"].param[where.vector]) * self._scale(0))
        if bias is not None and not _is_codes(bias):
            number = number + hl.f64(bias[where.vector])
        if residual is not None and isinstance(residual.format, CodeFormat):
            code = hl.f64(residual.param[where.residual]) - float(residual.format.zero)
            number = number + code * self._scale(2)
        elif residual is not None:
            number = number + hl.f64(residual[where.residual])
        return number

    def _code(self, number: hl.Expr) -> hl.Expr:
        """The code of a number, after the activation."""
        zero, codes = self.format.zero, self.format.codes
        clamped = number
        if self.activation is not None:
            low, high = (0.0, math.inf) if self.activation.function == "relu" else self.activation.parameters
            clamped = hl.max(clamped, hl.f64(low))
            clamped = clamped if high == math.inf else hl.min(clamped, hl.f64(high))
        by = self._scale(1)
        scaled = clamped * by if isinstance(self.format, FixedPoint) else clamped / by
        # One half is never added, which would round.
        below = hl.floor(scaled)
        nearest = hl.select(scaled - below >= hl.f64(0.5), below + hl.f64(1.0), below) + hl.f64(zero)
        code = hl.i32(hl.clamp(nearest, hl.f64(codes.start), hl.f64(codes.stop - 1)))
        if any(name in self.inputs and not _is_codes(self.inputs[name]) for name in ("bias", "residual")):
            code = hl.select(is_nan(hl.f32(number)), zero, code)
        return hl.cast(self.type, code)

    def _scale(self, index: int) -> hl.Expr:
        return hl.f64(self.inputs["scales"].param[index])


class ToFloats(FloatEpilogue):
    """activation(sum step + bias + residual) in float32, in the format of the output."""

    def __init__(
        self, inputs: Mapping[str, Source], activation: Pointwise | None, format_: NumberFormat, *, has_begun: bool
    ) -> None:
        """See `WideEpilogue`."""
        super().__init__({**inputs, "scale": inputs["step"]}, activation, format_)
        self.begins_with_bias = has_begun

    def _vector(self, name: str, place: Place) -> hl.Expr | None:
        scale = self.inputs["step"].param[place.vector] * self.inputs["scales"].param[0]
        if name == "scale":
            return scale
        if name == "bias" and name in self.inputs and _is_codes(self.inputs[name]):
            return None if self.begins_with_bias else hl.f32(self.inputs[name].param[place.vector]) * scale
        return super()._vector(name, place)


def _is_codes(source: Source) -> bool:
    return isinstance(source.format, CodeFormat)
