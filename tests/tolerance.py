"""How far a float32 result may be from the exact one, computed from the values at hand.

`judge` runs a graph in float64 and carries along, for each value, a bound on the error of any float32 execution that
 - adds a sum of n terms in any order: at most gamma(n) x the sum of the terms' magnitudes
   (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1 and 4.2),
 - rounds each elementary operation, at most u = 2^-24 relative, and
 - evaluates the functions of kernels/parts/math.py to `FUNCTION_UNITS` units of 2^-24 relative, and
 - takes denormals for zero: an operand or a result below 2^-126 may be off by as much as that.
Errors of inputs are carried through by the derivative's bound of each op.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch

from netopt.graph import Graph, Node
from netopt.numerics import FLOAT32, NumberFormat
from netopt.ops import (
    AdaptivePool2d,
    Arithmetic,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Expand,
    LayerNorm,
    Matmul,
    Op,
    Pad,
    Permute,
    PixelShuffle,
    PixelUnshuffle,
    Pointwise,
    Pool2d,
    Reduce,
    Relayout,
    Reshape,
    Resize,
    Slice,
    Softmax,
    SpatialMean,
    TensorType,
    Winograd2d,
)
from netopt.ops.winograd2d import TRANSFORMS, Transform

U = 2.0**-24
# exp, tanh, erf ...: at most 8, measured in tests/kernels/parts/test_math.py; a few sums and products on top.
FUNCTION_UNITS = 12.0
SMALLEST_NORMAL = 2.0**-126
TINY = 1e-37  # below the smallest normal number relative errors mean nothing: exponentials may flush to zero

Bounded = tuple[torch.Tensor, torch.Tensor]  # value, bound on its error

# The largest derivative of each function; a parameter may scale it.
SLOPES: dict[str, Callable[..., float]] = {
    "relu": lambda: 1.0,
    "hardtanh": lambda low, high: 1.0,
    "leaky_relu": lambda slope: max(1.0, abs(slope)),
    "elu": lambda alpha, scale, input_scale: abs(scale) * max(1.0, abs(alpha * input_scale)),
    "gelu": lambda: 1.13,
    "gelu_tanh": lambda: 1.13,
    "silu": lambda: 1.1,
    "sigmoid": lambda: 0.25,
    "tanh": lambda: 1.0,
    "hardswish": lambda: 1.5,
    "hardsigmoid": lambda: 1.0 / 6.0,
    "softplus": lambda beta, threshold: 1.0,
    "logsigmoid": lambda: 1.0,
    "mish": lambda: 1.1,
    "erf": lambda: 1.13,
    "abs": lambda: 1.0,
    "neg": lambda: 1.0,
    "sin": lambda: 1.0,
    "cos": lambda: 1.0,
    "atan": lambda: 1.0,
}
# Of functions without a largest one, the size of the derivative at x; it is monotone on either side of zero.
DERIVATIVES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "exp": torch.exp,
    "log": lambda x: 1.0 / x,
    "sqrt": lambda x: 0.5 / x.sqrt(),
    "rsqrt": lambda x: 0.5 / (x * x.sqrt()),
    "reciprocal": lambda x: 1.0 / (x * x),
    "square": lambda x: 2.0 * x.abs(),
    "tan": lambda x: 1.0 + x.tan() ** 2,
    "asin": lambda x: 1.0 / (1.0 - x * x).sqrt(),
    "acos": lambda x: 1.0 / (1.0 - x * x).sqrt(),
    "sinh": torch.cosh,
    "cosh": lambda x: x.sinh().abs(),
    "expm1": torch.exp,
    "log1p": lambda x: 1.0 / (1.0 + x),
    **dict.fromkeys(("floor", "ceil", "round", "trunc", "sign"), torch.zeros_like),  # only of exact numbers
}
# Functions x * g(x) or log(1 + e^x) whose error is relative to |x|, not to the result, where the result is near zero.
RELATIVE_TO_INPUT = {"gelu", "gelu_tanh", "silu", "hardswish", "softplus", "logsigmoid", "mish"}


def gamma(terms: int) -> float:
    """The relative error of a sum of products of this many terms."""
    return terms * U / (1.0 - terms * U)


def judge(graph: Graph, inputs: Sequence[torch.Tensor]) -> list[Bounded]:
    """For each output of the graph: the float64 value, and how far a float32 result may be from it."""
    given = {**graph.constants, **dict(zip(graph.inputs, inputs, strict=True))}
    exact = {name: (value.double(), _flushed(value.double())) for name, value in given.items()}
    exact |= {name: _store(exact[name], graph.types[name]) for name in graph.inputs}
    for node in graph.nodes:
        value, error = _carry(node, [exact[name] for name in node.inputs])
        error = error + _terms(node, graph) * SMALLEST_NORMAL
        exact[node.output] = _store((value, error), graph.types[node.output])
    return [exact[name] for name in graph.outputs]


def judge_op(op: Op, inputs: Sequence[torch.Tensor], format_: NumberFormat = FLOAT32) -> Bounded:
    """The same for one op, of which no input is a constant, and whose output is stored in this format."""
    names = tuple(f"x{i}" for i in range(len(inputs)))
    types = {name: TensorType(tuple(x.shape)) for name, x in zip(names, inputs, strict=True)}
    types["y"] = dataclasses.replace(op.infer(list(types.values())), format=format_)
    (bounded,) = judge(Graph(names, ("y",), (Node(op, names, "y", ""),), types, {}), [x.float() for x in inputs])
    return bounded


def _flushed(value: torch.Tensor) -> torch.Tensor:
    """What is lost where the value is denormal and taken for zero."""
    return torch.where(value.abs() < SMALLEST_NORMAL, value.abs(), 0.0)


def _terms(node: Node, graph: Graph) -> int:
    """How many results of elementary operations, each of which may be flushed, add up in one number of the output."""
    if isinstance(node.op, Dense | Conv2d):
        return math.prod(graph.types[node.inputs[1]].shape[1:]) + len(node.inputs) + 8
    return 0 if isinstance(node.op, Reshape | Permute | Slice | Concat | Relayout) else 8


def assert_within(result: torch.Tensor, bounded: Bounded) -> None:
    """Assert that a float32 result is within its bound of the exact value."""
    exact, bound = bounded
    assert result.shape == exact.shape
    excess = (result.double() - exact).abs() - bound - TINY
    worst = excess.max().item() if excess.numel() else 0.0
    assert worst <= 0, f"off by {worst:.3g} more than the bound, which is at most {bound.max().item():.3g}"


def _store(value: Bounded, type_: TensorType) -> Bounded:
    """What is left of a value when it is rounded to its format: to bfloat16, half of the last of 8 bits."""
    if type_.format == FLOAT32:
        return value
    return value[0], value[1] + 2.0**-8 * (value[0].abs() + value[1])


def _carry(node: Node, inputs: list[Bounded]) -> Bounded:  # a row for each op
    values = [value for value, _ in inputs]
    errors = [error for _, error in inputs]
    y = node.op.reference(*values)
    match node.op:
        case Dense():
            return _dense(node.op, values, errors)
        case Conv2d() | ConvTranspose2d():
            return _conv2d(node.op, values, errors)
        case Winograd2d():
            return _winograd2d(node.op, values, errors)
        case Pool2d("max") | AdaptivePool2d("max") | Relayout():
            # A maximum moves by no more than the largest error in its window.
            return y, node.op.reference(errors[0])
        case Reduce("max" | "min"):
            return y, errors[0].amax(node.op.axes, keepdim=True)
        case Pool2d() | AdaptivePool2d() | SpatialMean() | Resize() | Reduce():
            # To resize takes two stages, each a weight 1 - w, two products and a sum.
            terms = values[0].numel() // (y.numel() if isinstance(node.op, Reduce) else y.shape[0] * y.shape[1])
            terms = max(6, terms)
            return y, node.op.reference(errors[0]) + gamma(terms + 2) * node.op.reference(values[0].abs())
        case Pointwise():
            return y, _pointwise(node.op, values[0], errors[0], y)
        case Arithmetic(function):
            # An infinite result, of a mask, is exact.
            return y, torch.where(y.isinf(), 0.0, _arithmetic(function, values, errors, y) + U * y.abs())
        case Softmax(axis, log):
            return y, _softmax(values[0], errors[0], y, axis, log)
        case LayerNorm():
            return y, _layer_norm(node.op, values, errors[0])
        case BatchNorm():
            scale, _ = node.op.scale_and_shift(*values[1:])
            along = (-1,) + (1,) * (y.dim() - 2)
            size = (values[0] * scale.reshape(along)).abs() + y.abs()
            return y, scale.abs().reshape(along) * errors[0] + gamma(8) * size
        case Matmul():
            return y, _matmul(node.op, values, errors)
        case Pad():
            return y, dataclasses.replace(node.op, value=0.0).reference(errors[0])
        case ChannelShuffle() | PixelShuffle() | PixelUnshuffle() | Reshape() | Permute():
            return y, node.op.reference(*errors)
        case Expand() | Slice() | Concat():
            return y, node.op.reference(*errors)
        case _:
            raise NotImplementedError(node.op.name)


def _dense(op: Dense, values: list[torch.Tensor], errors: list[torch.Tensor]) -> Bounded:
    x, weight, *terms = values
    linear = x @ weight.T
    size = x.abs() @ weight.abs().T
    carried = errors[0] @ weight.abs().T + x.abs() @ errors[1].T
    for term, error in zip(terms, errors[2:], strict=True):
        linear, size, carried = linear + term, size + term.abs(), carried + error
    error = carried + gamma(x.shape[-1] + len(terms) + 1) * size
    if op.activation is None:
        return linear, error
    y = op.activation.reference(linear)
    return y, _pointwise(op.activation, linear, error, y)


def _matmul(op: Matmul, values: list[torch.Tensor], errors: list[torch.Tensor]) -> torch.Tensor:
    plain = dataclasses.replace(op, scale=abs(op.scale))
    (x, y), (dx, dy) = (values[0].abs(), values[1].abs()), errors
    carried = plain.reference(dx, y) + plain.reference(x, dy) + plain.reference(dx, dy)
    terms = op.views([TensorType(tuple(value.shape)) for value in values])[0].shape[-1]
    # Each product and sum; the scale, and the multiplication by it.
    return carried + gamma(terms + 2) * plain.reference(x, y)


def _conv2d(op: Conv2d | ConvTranspose2d, values: list[torch.Tensor], errors: list[torch.Tensor]) -> Bounded:
    plain = dataclasses.replace(op, has_bias=False, has_residual=False, activation=None)
    x, weight = values[:2]
    products = weight[0].numel() if isinstance(op, Conv2d) else weight[:, 0].numel() // op.groups
    size = plain.reference(x.abs(), weight.abs())
    carried = plain.reference(errors[0], weight.abs()) + plain.reference(x.abs(), errors[1])
    return _end(op, values, errors, plain.reference(x, weight), size, carried, products)


def _winograd2d(op: Winograd2d, values: list[torch.Tensor], errors: list[torch.Tensor]) -> Bounded:
    """Three sums one in the other: two of `points` terms, over the inputs, and again two of `points` terms."""
    x, weight = values[:2]
    exact = TRANSFORMS[op.tile]
    magnitudes = Transform(*(tuple(tuple(map(abs, row)) for row in m) for m in (exact.at, exact.g, exact.bt)))
    size = op.convolve(x.abs(), weight.abs(), magnitudes)
    carried = op.convolve(errors[0], weight.abs(), magnitudes) + op.convolve(x.abs(), errors[1], magnitudes)
    return _end(op, values, errors, op.convolve(x, weight, exact), size, carried, weight.shape[1] + 4 * op.points)


def _end(
    op: Conv2d | ConvTranspose2d | Winograd2d,
    values: list[torch.Tensor],
    errors: list[torch.Tensor],
    linear: torch.Tensor,
    size: torch.Tensor,
    carried: torch.Tensor,
    length: int,
) -> Bounded:
    """Bias, residual and activation after sums of `length` terms of a total magnitude of `size`."""
    terms = values[2:]
    for number, term in enumerate(terms):
        is_bias = op.has_bias and number == 0
        term, error = (t[:, None, None] if is_bias else t for t in (term, errors[2 + number]))
        linear, size, carried = linear + term, size + term.abs(), carried + error
    error = carried + gamma(length + len(terms) + 1) * size
    if op.activation is None:
        return linear, error
    y = op.activation.reference(linear)
    return y, _pointwise(op.activation, linear, error, y)


def _pointwise(op: Pointwise, x: torch.Tensor, error: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    size = torch.maximum(y.abs(), x.abs()) if op.function in RELATIVE_TO_INPUT else y.abs()
    if op.function in DERIVATIVES:
        slope = torch.maximum(*(DERIVATIVES[op.function](x + sign * error) for sign in (-1, 1)))
        return torch.where(error > 0, slope * error, 0.0) + FUNCTION_UNITS * U * size
    if op.function == "power":
        (exponent,) = op.parameters
        slope = (exponent * x.abs() ** (exponent - 1.0)).abs()
        # The exponential of a logarithm, whose error grows with it.
        return torch.where(error > 0, slope * error, 0.0) + FUNCTION_UNITS * U * size * (1.0 + y.abs().log().abs())
    if op.function == "softplus":
        size = size + 1.0 / abs(op.parameters[0])
    if op.function == "elu":
        size = size + x.abs() * SLOPES["elu"](*op.parameters)
    return SLOPES[op.function](*op.parameters) * error + FUNCTION_UNITS * U * size


def _arithmetic(function: str, values: list[torch.Tensor], errors: list[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    (a, b), (da, db) = values, errors
    if function in ("add", "sub"):
        return da + db + U * (da + db)
    if function in ("maximum", "minimum"):
        return torch.maximum(da, db)
    if function == "prelu":
        slope = torch.where(a > 0, 1.0, b.abs()).maximum(torch.where(a.abs() > da, 0.0, b.abs().clamp(min=1.0)))
        return slope * da + a.abs() * db + da * db
    if function == "mul":
        return a.abs() * db + b.abs() * da + da * db
    return (da + y.abs() * db) / (b.abs() - db).clamp(min=1e-300)


def _softmax(x: torch.Tensor, error: torch.Tensor, y: torch.Tensor, axis: int, log: bool) -> torch.Tensor:
    terms = x.shape[axis]
    # x - max is rounded, which the exponential multiplies: relative error |x - max| u.
    spread = torch.where(x.isinf(), 0.0, (x.amax(axis, keepdim=True) - x).abs())  # e^-inf is 0, exactly
    worst = error.amax(axis, keepdim=True) + U * spread.amax(axis, keepdim=True)
    relative = 2.0 * (error + worst) + U * spread + gamma(terms) + FUNCTION_UNITS * U
    if log:
        return relative + 2.0 * U * (y.abs() + spread) + FUNCTION_UNITS * U
    return y * relative * (1.0 + relative)


def _layer_norm(op: LayerNorm, values: list[torch.Tensor], error: torch.Tensor) -> torch.Tensor:
    x, weight, bias = values
    axes = tuple(range(-op.axes, 0))
    terms = weight.numel()
    mean = x.mean(axes, keepdim=True)
    deviation = (x.var(axes, unbiased=False, keepdim=True) + op.epsilon).sqrt()
    centred = (x - mean).abs() / deviation
    # The mean's own error, then that of each difference, both in units of the deviation.
    shift = (gamma(terms + 1) * x.abs().mean(axes, keepdim=True) + error.mean(axes, keepdim=True)) / deviation
    local = shift + U * centred + error / deviation
    spread = 2.0 * centred * (local.amax(axes, keepdim=True) + gamma(terms)) + 4.0 * U * centred
    return (local + spread + 8.0 * U * centred) * weight.abs() + 4.0 * U * ((centred * weight).abs() + bias.abs())
