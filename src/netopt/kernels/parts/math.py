"""Functions of float32 vectors that Halide lacks or calls from libm one number at a time.

Each is accurate to a few units in the last place, which tests/kernels/parts/test_math.py measures, and passes NaN on.
Halide compiles with fast-math flags, so what relies on NaN or on the order of additions says so with `strict_float`.
"""

from __future__ import annotations

import math

import halide as hl

from netopt.kernels.machine.formats import HALIDE
from netopt.numerics import operations


def f32(value: float) -> hl.Expr:
    """A float32 constant."""
    return hl.f32(value)


def clamp(x: hl.Expr, low: float, high: float) -> hl.Expr:
    """min(max(x, low), high), and NaN where x is NaN."""
    return at_most(at_least(x, f32(low)), f32(high))


def at_least(x: hl.Expr, low: hl.Expr, below: hl.Expr | None = None) -> hl.Expr:
    """max(x, low), and NaN where x is NaN; with `below`, low where x is below that."""
    return hl.strict_float(hl.select(x < (low if below is None else below), low, x))


def at_most(x: hl.Expr, high: hl.Expr) -> hl.Expr:
    """min(x, high), and NaN where x is NaN."""
    return hl.strict_float(hl.select(x > high, high, x))


def is_nan(x: hl.Expr) -> hl.Expr:
    """Whether x is NaN, by its bits: fast math takes it for decided that the result of a sum is not."""
    return operations.is_nan(x, HALIDE)


def flushed(x: hl.Expr) -> hl.Expr:
    """x, and zero where it is denormal: of what may be an operand handed on, where nothing was computed."""
    return operations.flushed(x, HALIDE)


def maximum(a: hl.Expr, b: hl.Expr) -> hl.Expr:
    """The larger number, and NaN where either is NaN."""
    return hl.strict_float(hl.select(is_nan(a) | (a > b), a, b))


def minimum(a: hl.Expr, b: hl.Expr) -> hl.Expr:
    """The smaller number, and NaN where either is NaN."""
    return hl.strict_float(hl.select(is_nan(a) | (a < b), a, b))


def log(x: hl.Expr) -> hl.Expr:
    """The natural logarithm: n ln(2) + 2 artanh(s), s = (f - 1) / (f + 1), of x = 2^n f with f from 0.71 to 1.42.

    -inf of 0, and NaN below it. Halide's own gives a number for NaN.
    """
    # Numbers below the smallest normal one are taken as that times 2^-24 of what they are.
    tiny = x < f32(2.0**-126)
    bits = hl.reinterpret(hl.Int(32), hl.select(tiny, x * f32(2.0**24), x))
    # The exponent of x / sqrt(1/2), rounded down: f is then around 1.
    n = (bits - 0x3F3504F3) >> 23
    f = hl.reinterpret(hl.Float(32), bits - (n << 23))
    s = (f - f32(1.0)) / (f + f32(1.0))
    square = s * s
    tail = square * _horner(square, *(1.0 / k for k in (13, 11, 9, 7, 5, 3)))
    exponent = hl.f32(n) - hl.select(tiny, f32(24.0), f32(0.0))
    # ln(2) in two parts: the exponent times the first is exact.
    low = f32(2.0) * s * tail + exponent * f32(math.log(2.0) - 0.693359375)
    y = exponent * f32(0.693359375) + (f32(2.0) * s + low)
    special = hl.select(x == f32(0.0), f32(-math.inf), hl.select(x < f32(0.0), f32(math.nan), x))
    return hl.strict_float(hl.select((x > f32(0.0)) & (x < f32(math.inf)), y, special))


def exp(x: hl.Expr) -> hl.Expr:
    """e^x = 2^n e^r with |r| <= ln(2) / 2, by the Taylor series of e^r.

    0 where it is below the smallest normal numbers. Halide's own gives a number for NaN, and takes longer.
    """
    n = hl.round(x * f32(1.0 / math.log(2.0)))
    # ln(2) in two parts: n times the first is exact.
    r = hl.strict_float(x - n * f32(0.693359375)) - n * f32(math.log(2.0) - 0.693359375)
    series = _horner(r, *(1.0 / math.factorial(power) for power in range(7, -1, -1)))
    # 2^n as 2 * 2^(n - 1), since 2^128 is too large; n is between -126 and 128 where the result is used.
    power = hl.reinterpret(hl.Float(32), (hl.i32(n) + 126) << 23)
    y = (series + series) * power
    return hl.strict_float(hl.select(x < f32(-87.0), f32(0.0), hl.select(x > f32(88.72), f32(math.inf), y)))


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
    """1 / (1 + e^-x); 0 where e^-x overflows, which is where it is below the smallest normal numbers."""
    return f32(1.0) / (f32(1.0) + exp(-x))


def _horner(x: hl.Expr, *coefficients: float) -> hl.Expr:
    """The polynomial with these coefficients, highest power first."""
    result = f32(coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + f32(coefficient)
    return result
