"""Pointwise functions as expressions: of their own kernel, and of the epilogues of others."""

from __future__ import annotations

import math
from collections.abc import Callable

import halide as hl

from netopt.kernels.parts.math import (
    at_least,
    at_most,
    clamp,
    erf,
    exp,
    expm1_of_negative,
    f32,
    flushed,
    is_nan,
    log,
    log1p_of_unit,
    sigmoid,
    tanh,
)
from netopt.numerics import SMALLEST_NORMAL
from netopt.ops.pointwise import Pointwise


def _elu(x: hl.Expr, alpha: float, scale: float, input_scale: float) -> hl.Expr:
    return f32(scale) * hl.select(x > f32(0.0), x, f32(alpha) * expm1_of_negative(f32(input_scale) * x))


def _gelu_tanh(x: hl.Expr) -> hl.Expr:
    inner = f32(math.sqrt(2.0 / math.pi)) * (x + f32(0.044715) * x * x * x)
    return f32(0.5) * x * (f32(1.0) + tanh(inner))


def _softplus(x: hl.Expr, beta: float, threshold: float) -> hl.Expr:
    z = f32(beta) * x
    soft = at_least(z, f32(0.0)) + log1p_of_unit(exp(-hl.abs(z)))
    return hl.select(z > f32(threshold), x, soft * f32(1.0 / beta))


def _mish(x: hl.Expr) -> hl.Expr:
    """x tanh(ln(1 + e^x)) = x n / (n + 2) with n = e^x (e^x + 2); from 20 on the quotient is 1."""
    e = exp(at_most(x, f32(20.0)))
    n = e * (e + f32(2.0))
    # The quotient first: x n would overflow.
    return x * hl.strict_float(n / (n + f32(2.0)))


def _sqrt(x: hl.Expr) -> hl.Expr:
    return hl.strict_float(hl.sqrt(x))


def _hardsigmoid(x: hl.Expr) -> hl.Expr:
    return clamp(x + f32(3.0), 0.0, 6.0) * f32(1.0 / 6.0)


def _sign(x: hl.Expr) -> hl.Expr:
    one = hl.select(x > f32(0.0), f32(1.0), hl.select(x < f32(0.0), f32(-1.0), f32(0.0)))
    return hl.strict_float(hl.select(is_nan(x), f32(0.0), one))


def _expm1(x: hl.Expr) -> hl.Expr:
    """By the formula in tanh where nothing else keeps the digits, and from 1/2 on as it says."""
    return hl.select(x < f32(0.5), expm1_of_negative(at_most(x, f32(0.5))), exp(x) - f32(1.0))


def _log1p(x: hl.Expr) -> hl.Expr:
    """ln(u) of u = 1 + x, as rounded, and what the rounding has lost over u."""
    u = hl.strict_float(f32(1.0) + x)
    lost = hl.strict_float(x - (u - f32(1.0))) / u
    # At the ends, and for NaN, the logarithm has all.
    is_inner = (u > f32(0.0)) & (u < f32(math.inf))
    return hl.strict_float(hl.select(is_inner, log(u) + lost, log(u)))


def _power(x: hl.Expr, exponent: float) -> hl.Expr:
    """x^n: whole powers of up to 64 as products, times a square root for a half; else e^(n ln x)."""
    whole, rest = divmod(abs(exponent), 1.0)
    if exponent == 0.0:
        return f32(1.0)
    if whole <= 64 and rest in (0.0, 0.5):
        y = None if rest == 0.0 else _sqrt(x)
        square = x
        for bit in range(int(whole).bit_length()):
            square = square * square if bit else square
            if int(whole) >> bit & 1:
                y = square if y is None else y * square
        assert y is not None
        y = y if exponent > 0 else f32(1.0) / y
    else:
        y = exp(f32(exponent) * log(hl.abs(x)))
        if exponent % 1.0:
            y = hl.select(x < f32(0.0), f32(math.nan), y)
        elif exponent % 2.0:
            y = hl.select(x < f32(0.0), -y, y)
    if exponent % 1.0:
        # As IEEE 754: what is not a number for any negative base is one for -infinity, and of -0 it is that of 0.
        y = hl.select(x == f32(0.0), f32(0.0 if exponent > 0 else math.inf), y)
        y = hl.select(x == f32(-math.inf), f32(math.inf if exponent > 0 else 0.0), y)
    return hl.strict_float(y)


# One row for each function of `ops.pointwise.FUNCTIONS`.
EXPRESSIONS: dict[str, Callable[..., hl.Expr]] = {
    "relu": lambda x: at_least(x, f32(0.0)),
    "hardtanh": clamp,
    "leaky_relu": lambda x, slope: hl.select(x < f32(0.0), f32(slope) * x, x),
    "elu": _elu,
    "gelu": lambda x: f32(0.5) * x * (f32(1.0) + erf(x * f32(math.sqrt(0.5)))),
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x / (f32(1.0) + exp(-x)),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "hardswish": lambda x: x * _hardsigmoid(x),
    "hardsigmoid": _hardsigmoid,
    "softplus": _softplus,
    "logsigmoid": lambda x: at_most(x, f32(0.0)) - log1p_of_unit(exp(-hl.abs(x))),
    "mish": _mish,
    "exp": exp,
    "log": log,
    "sqrt": _sqrt,
    "rsqrt": lambda x: hl.strict_float(f32(1.0) / _sqrt(x)),
    "reciprocal": lambda x: hl.strict_float(f32(1.0) / x),
    "erf": erf,
    "abs": hl.abs,
    "neg": lambda x: -x,
    "square": lambda x: x * x,
    "floor": hl.floor,
    "ceil": hl.ceil,
    "round": hl.round,
    "trunc": hl.trunc,
    "sign": _sign,
    "sin": hl.sin,
    "cos": hl.cos,
    "tan": hl.tan,
    "asin": hl.asin,
    "acos": hl.acos,
    "atan": hl.atan,
    "sinh": hl.sinh,
    "cosh": hl.cosh,
    "expm1": _expm1,
    "log1p": _log1p,
    "power": _power,
}


# Functions that may hand on what they are given, or its magnitude; all others compute, which flushes.
_HAND_ON = {"relu", "hardtanh", "leaky_relu", "elu", "softplus", "abs", "neg"}
# Those that are x near zero, of which libm hands on x.
_HAND_ON |= {"sin", "tan", "asin", "atan", "sinh", "expm1", "log1p"}


def apply_to_any(op: Pointwise, x: hl.Expr) -> hl.Expr:
    """The function of `op` at x from memory, which may be denormal, as sums are not: then at zero."""
    if op.function == "relu":
        return at_least(x, f32(0.0), below=f32(SMALLEST_NORMAL))
    y = apply_pointwise(op, x)
    return flushed(y) if op.function in _HAND_ON else y


def apply_pointwise(op: Pointwise | None, x: hl.Expr) -> hl.Expr:
    """The function of `op` at x, or x itself where there is none."""
    return x if op is None else EXPRESSIONS[op.function](x, *op.parameters)
