"""Functions of float32 vectors that Halide lacks or calls from libm one number at a time.

Each is accurate to a few units in the last place, which tests/kernels/test_math.py measures, and passes NaN on.
Halide compiles with fast-math flags, so what relies on NaN or on the order of additions says so with `strict_float`.
"""

from __future__ import annotations

import halide as hl


def f32(value: float) -> hl.Expr:
    """A float32 constant."""
    return hl.f32(value)


def clamp(x: hl.Expr, low: float, high: float) -> hl.Expr:
    """min(max(x, low), high), and NaN where x is NaN."""
    return at_most(at_least(x, f32(low)), f32(high))


def at_least(x: hl.Expr, low: hl.Expr) -> hl.Expr:
    """max(x, low), and NaN where x is NaN."""
    return hl.strict_float(hl.select(x < low, low, x))


def at_most(x: hl.Expr, high: hl.Expr) -> hl.Expr:
    """min(x, high), and NaN where x is NaN."""
    return hl.strict_float(hl.select(x > high, high, x))


def is_nan(x: hl.Expr) -> hl.Expr:
    """Whether x is NaN, by its bits: fast math takes it for decided that the result of a sum is not."""
    magnitude = hl.reinterpret(hl.UInt(32), x) & hl.u32(0x7FFFFFFF)
    return magnitude > hl.u32(0x7F800000)


def exp(x: hl.Expr) -> hl.Expr:
    """e^x. Halide's own gives a number for NaN."""
    return hl.strict_float(hl.select(is_nan(x), x, hl.exp(x)))


def erf(x: hl.Expr) -> hl.Expr:
    """The error function: Halide's, which overflows for large arguments, where from 4 on it is 1 in float32."""
    return hl.erf(clamp(x, -4.0, 4.0))


def tanh(x: hl.Expr) -> hl.Expr:
    """Hyperbolic tangent. Source: the split at 0.625 and the polynomial below it are those of Cephes' tanhf."""
    magnitude = hl.abs(x)
    square = x * x
    polynomial = _horner(
        square, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1
    )
    small = x + x * square * polynomial
    # 1 - 2 / (e^2|x| + 1); from 10 on it is 1 in float32, and the exponential must not overflow.
    large = f32(1.0) - f32(2.0) / (exp(f32(2.0) * at_most(magnitude, f32(10.0))) + f32(1.0))
    return hl.select(magnitude < f32(0.625), small, hl.select(x < f32(0.0), -large, large))


def expm1_of_negative(x: hl.Expr) -> hl.Expr:
    """e^x - 1 for x <= 0: 2t / (1 - t) with t = tanh(x / 2), where nothing cancels."""
    t = tanh(x * f32(0.5))
    return f32(2.0) * t / (f32(1.0) - t)


def log1p_of_unit(u: hl.Expr) -> hl.Expr:
    """ln(1 + u) for 0 <= u <= 1: 2 artanh(s) with s = u / (2 + u) <= 1/3, by its series, to below 1e-9."""
    s = u / (f32(2.0) + u)
    series = _horner(s * s, *(1.0 / n for n in (17, 15, 13, 11, 9, 7, 5, 3, 1)))
    return f32(2.0) * s * series


def sigmoid(x: hl.Expr) -> hl.Expr:
    """1 / (1 + e^-x), from e^-|x|, which does not overflow."""
    e = exp(-hl.abs(x))
    return hl.select(x < f32(0.0), e, f32(1.0)) / (f32(1.0) + e)


def _horner(x: hl.Expr, *coefficients: float) -> hl.Expr:
    """The polynomial with these coefficients, highest power first."""
    result = f32(coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + f32(coefficient)
    return result
