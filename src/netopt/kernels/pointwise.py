"""Pointwise functions of one input."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import stored
from netopt.kernels.machine.kernel import Pipeline, PlainKernel, Problem, Schedule, fix_output, float_input
from netopt.kernels.parts.elementwise import build_on_images, image_shapes, is_flat
from netopt.kernels.parts.math import (
    at_least,
    at_most,
    clamp,
    erf,
    exp,
    expm1_of_negative,
    f32,
    log,
    log1p_of_unit,
    sigmoid,
    tanh,
)
from netopt.kernels.parts.parallel import vectorize_and_split
from netopt.numerics import Shape
from netopt.ops import Pointwise

# --- algorithm


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
    return x * (n / (n + f32(2.0)))


def _sqrt(x: hl.Expr) -> hl.Expr:
    return hl.strict_float(hl.sqrt(x))


def _hardsigmoid(x: hl.Expr) -> hl.Expr:
    return clamp(x + f32(3.0), 0.0, 6.0) * f32(1.0 / 6.0)


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
}


def apply_pointwise(op: Pointwise | None, x: hl.Expr) -> hl.Expr:
    """The function of `op` at x, for this kernel and for the ends of others; x itself where there is none."""
    return x if op is None else EXPRESSIONS[op.function](x, *op.parameters)


# --- schedule


class PointwiseKernel(PlainKernel[Pointwise]):
    """One flat loop. Bound by memory: relu over 1M floats in the L2 cache runs at the rate of a copy."""

    op = Pointwise

    def argument_shapes(self, problem: Problem[Pointwise], schedule: Schedule, cpu: Cpu) -> tuple[Shape, ...]:
        return ((problem.output.elements,),) * 2 if is_flat(problem) else image_shapes(problem)

    def build(self, problem: Problem[Pointwise], schedule: Schedule, cpu: Cpu) -> Pipeline:
        if not is_flat(problem):
            return build_on_images(problem, cpu, partial(apply_pointwise, problem.op))
        shape, _ = self.argument_shapes(problem, schedule, cpu)
        source, i, out = float_input("source", shape, problem.inputs[0]), hl.Var("i"), hl.Func("out")
        out[i] = stored(apply_pointwise(problem.op, source[i]), problem.output.format)
        fix_output(out, shape, problem.output)
        vectorize_and_split(out, i, shape[0], cpu.lanes, problem.threads)
        return Pipeline(out, (source,))
