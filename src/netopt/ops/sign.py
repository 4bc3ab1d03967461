"""The sign of numbers, +1 or -1, with a gradient to train through: an op of PyTorch, and of the graph.

sign(0) = +1, and sign(NaN) = -1, everywhere: in training, in the interpreter and in kernels. A denormal number, below
2^-126 in magnitude, is zero, and so its sign is +1, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS, SIGNS, NumberFormat, is_plus
from netopt.ops.op import Layouts, Op, TensorType, expect_inputs


def sign_of(x: torch.Tensor) -> torch.Tensor:
    """+1 where x > -2^-126, else -1, in the type of x."""
    return is_plus(x).to(x.dtype).mul_(2).sub_(1)


def _swish_sign(x: torch.Tensor, beta: float) -> torch.Tensor:
    z = beta * x
    return beta * (2 - z * torch.tanh(z / 2)) / (1 + torch.cosh(z))


# d sign(x) / dx in training, by name, as a function of x and of one number.
GRADIENTS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "identity": lambda x, _: torch.ones_like(x),
    "ste": lambda x, clip: (x.abs() <= clip).to(x.dtype),
    "approx_sign": lambda x, _: (2 - 2 * x.abs()).clamp_min(0),
    "swish_sign": _swish_sign,
}


@torch.library.custom_op("netopt::sign", mutates_args=())
def sign(x: torch.Tensor, gradient: str, parameter: float) -> torch.Tensor:
    """`sign_of(x)`; trained through by `GRADIENTS[gradient]` with its parameter."""
    return sign_of(x)


@sign.register_fake
def _(x: torch.Tensor, gradient: str, parameter: float) -> torch.Tensor:
    return torch.empty_like(x)


def _remember(ctx: Any, inputs: tuple[torch.Tensor, str, float], output: torch.Tensor) -> None:
    x, ctx.gradient, ctx.parameter = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
    if ctx.gradient == "identity":
        return grad, None, None
    (x,) = ctx.saved_tensors
    return grad * GRADIENTS[ctx.gradient](x, ctx.parameter), None, None


sign.register_autograd(_backward, setup_context=_remember)


@dataclass(frozen=True)
class Sign(Op):
    """y = +1 or -1 for each element of x.

    Inputs: x; with `has_threshold` also t and d, for each channel (axis 1 of x; axis 0 of a vector). Then
    y = +1 where d x >= d t, else -1: d is +1, or -1 where the sign falls as x rises.
    """

    has_threshold: bool = False
    name: ClassVar[str] = "sign"
    layouts = Layouts.ANY
    formats = FLOATS

    @property
    def gives_signs(self) -> bool:
        return True

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 3 if self.has_threshold else 1)
        x = inputs[0].shape
        if self.has_threshold and (not x or any(type_.shape != (x[min(1, len(x) - 1)],) for type_ in inputs[1:])):
            raise InvalidArgument(
                "sign", expected="thresholds and directions (channels,)", found=[str(type_) for type_ in inputs]
            )
        return inputs[0].logical

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        if not self.has_threshold:
            return sign_of(x)
        along = (-1,) + (1,) * max(0, x.dim() - 2)
        t, d = (tensor.reshape(along) for tensor in inputs[1:])
        return (d * x >= d * t).to(x.dtype) * 2 - 1

    def constant_operands(self, inputs: Sequence[TensorType]) -> tuple[int, ...]:
        return tuple(range(1, len(inputs)))

    def writes(self, format_: NumberFormat, inputs: Sequence[TensorType]) -> bool:
        return format_ == SIGNS or super().writes(format_, inputs)

    def layout_missed(self, output: TensorType) -> str | None:
        # Its kernel takes the last axis in memory for that of the channels.
        fits = not self.has_threshold or output.lies_as_image or len(output.shape) <= 2
        return None if fits else "thresholds of rows or of images"
