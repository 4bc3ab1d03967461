"""Pointwise functions of one input: the activations of torch.nn, and elementary functions.

`FUNCTIONS` is the table of them. `kernels/parts/pointwise.py` has a row for each of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS, CodeFormat
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs


@dataclass(frozen=True)
class PointwiseFunction:
    """A row of the table.

    Attributes:
        parameters: their names, in order.
        reference: f(x, *parameters).
        rises: whether f never falls, given the parameters.
    """

    parameters: tuple[str, ...]
    reference: Callable[..., torch.Tensor]
    rises: Callable[..., bool] = lambda *_: False


def _elu(x: torch.Tensor, alpha: float, scale: float, input_scale: float) -> torch.Tensor:
    """scale * (x if x > 0 else alpha * expm1(input_scale * x)): elu, selu and celu."""
    return scale * torch.where(x > 0, x, alpha * torch.expm1(input_scale * x))


def _always(*parameters: float) -> bool:
    return True


def _if_not_negative(*parameters: float) -> bool:
    return all(parameter >= 0 for parameter in parameters)


FUNCTIONS: dict[str, PointwiseFunction] = {
    "relu": PointwiseFunction((), F.relu, _always),
    "hardtanh": PointwiseFunction(("minimum", "maximum"), lambda x, low, high: x.clamp(low, high), _always),
    "leaky_relu": PointwiseFunction(("slope",), F.leaky_relu, _if_not_negative),
    "elu": PointwiseFunction(("alpha", "scale", "input_scale"), _elu, _if_not_negative),
    "gelu": PointwiseFunction((), F.gelu),
    "gelu_tanh": PointwiseFunction((), lambda x: F.gelu(x, approximate="tanh")),
    "silu": PointwiseFunction((), F.silu),
    "sigmoid": PointwiseFunction((), torch.sigmoid, _always),
    "tanh": PointwiseFunction((), torch.tanh, _always),
    "hardswish": PointwiseFunction((), F.hardswish),
    "hardsigmoid": PointwiseFunction((), F.hardsigmoid, _always),
    "softplus": PointwiseFunction(("beta", "threshold"), F.softplus, _if_not_negative),
    "logsigmoid": PointwiseFunction((), F.logsigmoid),
    "mish": PointwiseFunction((), F.mish),
    "exp": PointwiseFunction((), torch.exp),
    "log": PointwiseFunction((), torch.log),
    "sqrt": PointwiseFunction((), torch.sqrt),
    "rsqrt": PointwiseFunction((), torch.rsqrt),
    "reciprocal": PointwiseFunction((), torch.reciprocal),
    "erf": PointwiseFunction((), torch.erf),
    "abs": PointwiseFunction((), torch.abs),
    "neg": PointwiseFunction((), torch.neg),
    "square": PointwiseFunction((), torch.square),
    "floor": PointwiseFunction((), torch.floor, _always),
    "ceil": PointwiseFunction((), torch.ceil, _always),
    "round": PointwiseFunction((), torch.round, _always),
    "trunc": PointwiseFunction((), torch.trunc, _always),
    "sign": PointwiseFunction((), torch.sign, _always),
    "sin": PointwiseFunction((), torch.sin),
    "cos": PointwiseFunction((), torch.cos),
    "tan": PointwiseFunction((), torch.tan),
    "asin": PointwiseFunction((), torch.asin),
    "acos": PointwiseFunction((), torch.acos),
    "atan": PointwiseFunction((), torch.atan),
    "sinh": PointwiseFunction((), torch.sinh),
    "cosh": PointwiseFunction((), torch.cosh),
    "expm1": PointwiseFunction((), torch.expm1),
    "log1p": PointwiseFunction((), torch.log1p),
    "power": PointwiseFunction(("exponent",), torch.pow),
}

# Those that the reference computes in float64 by operations that every machine rounds alike.
ROUNDED_ALIKE = frozenset(
    {"relu", "hardtanh", "leaky_relu", "hardsigmoid", "hardswish", "abs", "neg", "square", "sqrt", "rsqrt"}
    | {"reciprocal", "floor", "ceil", "round", "trunc", "sign"}
)


@dataclass(frozen=True)
class Pointwise(Op):
    """y = f(x), elementwise.

    Attributes:
        function: a key of `FUNCTIONS`.
        parameters: its parameters, in the table's order.
    """

    function: str
    parameters: tuple[float, ...] = ()
    name: ClassVar[str] = "pointwise"
    layouts = Layouts.ANY
    formats = FLOATS
    takes_codes = True
    elementwise = True

    def __post_init__(self) -> None:
        row = FUNCTIONS.get(self.function)
        if row is None:
            raise InvalidArgument("pointwise function", expected=f"one of {', '.join(FUNCTIONS)}", found=self.function)
        if len(row.parameters) != len(self.parameters) or not all(map(math.isfinite, self.parameters)):
            raise InvalidArgument(
                f"parameters of {self.function}", expected=f"finite {row.parameters}", found=self.parameters
            )

    @property
    def label(self) -> str:
        return self.function

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 1)
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[self.function].reference(inputs[0], *self.parameters)

    def is_exact_on(self, format_: CodeFormat) -> bool:
        # Of 8 bits a table has what the reference gives.
        return format_.bits <= 8 or self.function in ROUNDED_ALIKE

    def in_place_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return (0,)

    def is_monotone(self, index: int, constants: Mapping[int, torch.Tensor]) -> bool:
        return FUNCTIONS[self.function].rises(*self.parameters)

    def parallel_axes(self, axis: int, inputs: Sequence[TensorType]) -> tuple[int | None, ...]:
        return (axis,)
