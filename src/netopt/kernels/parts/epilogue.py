"""The epilogue of ops with weights, in kernels: scale, bias, residual, activation, rounding to the stored format."""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.formats import stored
from netopt.kernels.pointwise import apply_pointwise
from netopt.numerics import NumberFormat
from netopt.ops.pointwise import Pointwise


def finish(
    total: hl.Expr,
    activation: Pointwise | None,
    format_: NumberFormat,
    *,
    scale: hl.Expr | None = None,
    bias: hl.Expr | None = None,
    residual: hl.Expr | None = None,
) -> hl.Expr:
    """activation(total scale + bias + residual), as it is written to memory."""
    total = total if scale is None else total * scale
    for part in (bias, residual):
        total = total if part is None else total + part
    return stored(apply_pointwise(activation, total), format_)
