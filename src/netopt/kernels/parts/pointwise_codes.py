"""Pointwise functions whose results are codes: by whole numbers, in float64, or of 8-bit codes by a table."""

from __future__ import annotations

from collections.abc import Callable

import halide as hl
import numpy as np
import torch

from netopt.kernels.machine.buffers import aligned_array
from netopt.kernels.machine.formats import HALIDE, Array, Element, stored
from netopt.kernels.parts.codes import Elementwise, bytes_moved, moved
from netopt.kernels.parts.math import at_least, at_most
from netopt.kernels.parts.pointwise import apply_to_any
from netopt.numerics import CodeFormat, FixedPoint, NumberFormat
from netopt.ops import Pointwise

# Entries of a table: one for each byte, taken for a code.
BYTES = 256
# Those that only choose among numbers, and so among codes.
_CLAMPS = ("relu", "hardtanh")
_MAGNITUDES: dict[str, Elementwise] = {
    "abs": Elementwise(hl.abs, hl.abs, lambda x: x.larger(-x)),
    "neg": Elementwise(lambda x: -x, lambda x: -x, lambda x: -x),
}


def f64(value: float) -> hl.Expr:
    """A float64 constant."""
    return hl.f64(value)


def _hardsigmoid(x: hl.Expr) -> hl.Expr:
    return HALIDE.divide(_six(x), 6.0)


def _six(x: hl.Expr) -> hl.Expr:
    return at_most(at_least(x + f64(3.0), f64(0.0)), f64(6.0))


def _sign(x: hl.Expr) -> hl.Expr:
    return hl.select(x > f64(0.0), f64(1.0), hl.select(x < f64(0.0), f64(-1.0), f64(0.0)))


# Those of `ROUNDED_ALIKE`, as the references compute them in float64.
WIDE: dict[str, Callable[..., hl.Expr]] = {
    "relu": lambda x: at_least(x, f64(0.0)),
    "hardtanh": lambda x, low, high: at_most(at_least(x, f64(low)), f64(high)),
    "leaky_relu": lambda x, slope: hl.select(x > f64(0.0), x, x * f64(slope)),
    "hardsigmoid": _hardsigmoid,
    "hardswish": lambda x: HALIDE.divide(hl.strict_float(x * _six(x)), 6.0),
    "abs": hl.abs,
    "neg": lambda x: -x,
    "square": lambda x: x * x,
    "sqrt": hl.sqrt,
    "rsqrt": lambda x: f64(1.0) / hl.sqrt(x),
    "reciprocal": lambda x: f64(1.0) / x,
    "floor": hl.floor,
    "ceil": hl.ceil,
    "round": hl.round,
    "trunc": hl.trunc,
    "sign": _sign,
}


def uses_table(op: Pointwise, read: NumberFormat, written: NumberFormat) -> bool:
    """Whether a table gives the function: of codes of 8 bits, where whole numbers do not."""
    if not isinstance(read, CodeFormat) or not isinstance(written, CodeFormat) or read.bits > 8:
        return False
    return not _by_whole_numbers(op, read, written)


def table_of(op: Pointwise, read: CodeFormat, written: CodeFormat) -> Array:
    """What is stored of the function of each code, in the order of their bytes; exact, for it is the reference."""
    codes = np.arange(BYTES, dtype=np.uint8).view(read.dtype).clip(read.codes.start, read.codes.stop - 1)
    numbers = read.decode(torch.from_numpy(codes), torch.float64)
    table = aligned_array((BYTES,), written)
    table[...] = written.to_array(written.encode(op.reference(numbers)))
    return table


def stored_of(op: Pointwise, x: Element, written: NumberFormat) -> hl.Expr:
    """The function of an element, as it is stored; where there is no table."""
    if not isinstance(written, CodeFormat):
        return stored(apply_to_any(op, x.number), written)
    if op.function in _CLAMPS and isinstance(x.format, CodeFormat):
        return _clamped(op, x, written)
    if _by_whole_numbers(op, x.format, written):
        return _MAGNITUDES[op.function].stored([x], written)
    if op.function in WIDE:
        return stored(hl.strict_float(WIDE[op.function](x.wide, *op.parameters)), written)
    return stored(apply_to_any(op, x.number), written)


def bytes_computed(op: Pointwise, read: NumberFormat, written: NumberFormat) -> int:
    """Bytes of the type that vectors are made of."""
    if uses_table(op, read, written):
        return written.dtype.itemsize
    if not _by_whole_numbers(op, read, written):
        return 4
    return bytes_moved(read, written) if op.function in _CLAMPS else _MAGNITUDES[op.function].bytes([read], written)


def _by_whole_numbers(op: Pointwise, read: NumberFormat, written: NumberFormat) -> bool:
    are_fixed = isinstance(read, FixedPoint) and isinstance(written, FixedPoint)
    if op.function in _CLAMPS:
        return isinstance(read, CodeFormat) and (read == written or are_fixed)
    return op.function in _MAGNITUDES and are_fixed


def _clamped(op: Pointwise, x: Element, written: CodeFormat) -> hl.Expr:
    """Rounding never changes which of two numbers is larger: the code is clamped to those of the bounds."""
    code = moved(x, written)
    bounds = torch.tensor([0.0] if op.function == "relu" else op.parameters, dtype=torch.float64)
    low, *high = (hl.cast(code.type(), int(bound)) for bound in written.encode(bounds))
    code = hl.max(code, low)
    return hl.min(code, high[0]) if high else code
