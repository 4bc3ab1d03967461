"""Rounding to codes inside a network that is trained: what a number format makes of a tensor, with a gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics import TORCH, Affine, CodeFormat, FixedPoint
from netopt.numerics.operations import to_integer
from netopt.quantization.fixed_point.steps import EXPONENTS, Kind, check_kind, make_format, power_of_two, round_steps

# Bits of the codes of values and weights: all their numbers are exact in float32.
_BITS = 16


class Quantizer(nn.Module):
    """What a number format makes of a tensor: exactly `format.decode(format.encode(x))`, in float32 and in float64.

    Backward: dL/dx = dL/dy where x rounds to a code that there is, else 0; with `clips=False` everywhere. With
    `learned` the steps are trained, too: for a step s,
    dL/ds = g sum of dL/dy (round(x / s) - x / s), and in place of the difference the last code where x is beyond it,
    with g = 1 / sqrt(N Qmax) for the N numbers that share the step, of one example, and the largest code Qmax.
    Of steps that are powers of two the logarithm is trained, as if it were not rounded:
    dL/d(log2 s) = s ln(2) dL/ds.

    Source: Esser et al. (LSQ), 1902.08153, equations 1 to 3 and section 2.2; Jain et al. (TQT), 1903.08066, equations
    4 to 8.

    Attributes:
        bits: of a code.
        signed: whether there are codes below 0.
        channels: how many steps there are, one for each element along the first axis; None for one step for all.
        kind: "power": steps are powers of two; "real": numbers of 8 significant bits.
        zero_point: the code of 0.
        learned: whether the steps are parameters.
        clips: whether numbers beyond the codes have no gradient.
        batched: whether the first axis is that of examples; only N depends on it.
        enabled: whether anything is rounded; without it x is returned as it is.
        log2_step: of kind "power", the logarithms of the steps, () or (channels,), float32.
        raw_step: of kind "real", the steps before they are rounded, () or (channels,), float32.
    """

    def __init__(
        self,
        bits: int = 8,
        *,
        signed: bool = True,
        channels: int | None = None,
        kind: Kind = "power",
        zero_point: int = 0,
        learned: bool = False,
        clips: bool = True,
        batched: bool = False,
    ) -> None:
        """Take a quantizer of all steps 2^(1 - bits), or 2^-bits without signs: numbers up to 1 in magnitude.

        Raises:
            InvalidArgument, InvalidType: there is no format of such codes.
        """
        super().__init__()
        check_kind(kind)
        if channels is not None and (type(channels) is not int or channels < 1):
            raise InvalidArgument("channels of a quantizer", expected="at least 1, or None", found=repr(channels))
        for name, value in (("signed", signed), ("learned", learned), ("clips", clips), ("batched", batched)):
            if type(value) is not bool:
                raise InvalidType(f"{name} of a quantizer", expected="True or False", found=repr(value))
        self.bits, self.signed, self.channels, self.kind, self.zero_point = bits, signed, channels, kind, zero_point
        self.learned, self.clips, self.batched, self.enabled = learned, clips, batched, True
        if type(bits) is not int or bits > _BITS:
            raise InvalidArgument("bits of a quantizer", expected=f"an integer up to {_BITS}", found=repr(bits))
        if kind == "power" and zero_point != 0:
            raise InvalidArgument("zero point of a quantizer", expected='0, or kind="real"', found=repr(zero_point))
        log2_step = torch.full(() if channels is None else (channels,), float(signed - bits))
        raw = log2_step if kind == "power" else power_of_two(log2_step).float()
        self.log2_step: torch.Tensor
        self.raw_step: torch.Tensor
        if learned:
            self.register_parameter(self._raw_name, nn.Parameter(raw))
        else:
            self.register_buffer(self._raw_name, raw)
        self._codes = self.format.codes

    @staticmethod
    def of(format_: CodeFormat, *, learned: bool = False, clips: bool = True, batched: bool = False) -> Quantizer:
        """A quantizer that rounds as a format does; see `Quantizer`.

        Raises:
            InvalidArgument: codes have more than 16 bits.
            InvalidType: it is no format of codes.
        """
        if not isinstance(format_, FixedPoint | Affine):
            raise InvalidType("format of a quantizer", expected="FixedPoint or Affine", found=repr(format_))
        quantizer = Quantizer(
            format_.bits,
            signed=format_.is_signed,
            channels=len(format_.steps) if format_.is_by_channel else None,
            kind="power" if isinstance(format_, FixedPoint) else "real",
            zero_point=format_.zero,
            learned=learned,
            clips=clips,
            batched=batched,
        )
        steps = torch.tensor(format_.steps, dtype=torch.float64).reshape(quantizer._raw.shape)
        with torch.no_grad():
            quantizer._raw.copy_(_exponents(steps) if quantizer.kind == "power" else steps)
        return quantizer

    @property
    def step(self) -> torch.Tensor:
        """The steps as they are used, () or (channels,), in float64, with their gradient."""
        raw = self._raw
        if self.kind == "power":
            low, high = EXPONENTS["power"].start, EXPONENTS["power"].stop - 1
            return power_of_two(raw.detach().round().clamp(low, high)) * (
                1.0 + math.log(2.0) * (raw - raw.detach()).double()
            )
        return round_steps(raw.detach().abs(), "real") + (raw - raw.detach()).double()

    @property
    def by_channel(self) -> bool:
        """Whether each element along the first axis has its step."""
        return self.channels is not None

    @property
    def format(self) -> CodeFormat:
        """The format that it rounds to by now."""
        return make_format(self.step, self.bits, self.signed, self.kind, self.zero_point)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The numbers, each as its code stands for it.

        Args:
            x: of any shape, with `channels` along the first axis; float32 or float64.

        Raises:
            InvalidArgument: the first axis has another length.
        """
        if not self.enabled:
            return x
        step = self.step
        if self.channels is not None:
            if x.shape[:1] != (self.channels,):
                raise InvalidArgument("shape", expected=f"{self.channels} along the first axis", found=tuple(x.shape))
            step = step.reshape(-1, *[1] * (x.dim() - 1))
        shared = x.numel() // max(1, self.channels or (x.shape[0] if self.batched and x.dim() else 1))
        scale = 1.0 / math.sqrt(max(1, shared) * (self._codes.stop - 1 - self.zero_point or 1))
        y: torch.Tensor = _Rounding.apply(  # type: ignore[no-untyped-call]
            x, step, self._codes, self.zero_point, self.kind, self.clips, scale
        )
        return y

    def extra_repr(self) -> str:
        """The fields that are not as they are by default."""
        words = [f"{self.bits} bits", "signed" if self.signed else "unsigned"]
        words.append("powers of two" if self.kind == "power" else "real scales")
        words += [f"{self.channels} channels"] if self.channels is not None else []
        words += [f"zero_point={self.zero_point}"] if self.zero_point else []
        words += ["learned"] if self.learned else []
        words += ["clips=False"] if not self.clips else []
        words += ["off"] if not self.enabled else []
        return ", ".join(words)

    @property
    def _raw_name(self) -> str:
        return "log2_step" if self.kind == "power" else "raw_step"

    @property
    def _raw(self) -> torch.Tensor:
        """What the steps are made of: the parameter, or the buffer."""
        return self.log2_step if self.kind == "power" else self.raw_step


class _Rounding(torch.autograd.Function):
    """To codes and back."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        step: torch.Tensor,
        codes: range,
        zero: int,
        kind: Kind,
        clips: bool,
        scale: float,
    ) -> torch.Tensor:
        number = _in_steps(x, step, kind)
        code = to_integer(number, codes, zero, TORCH)
        # A sum that has no -0, which a code is not.
        y: torch.Tensor = (code + (0.0 - zero)).to(x.dtype) * step.to(x.dtype)
        ctx.low, ctx.high = codes.start - zero - 0.5, codes.stop - 1 - zero + 0.5
        ctx.kind, ctx.clips, ctx.scale = kind, clips, scale
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(x, y, step)
        elif clips:
            ctx.save_for_backward((number >= ctx.low) & (number < ctx.high))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if not ctx.needs_input_grad[1]:
            return grad * ctx.saved_tensors[0] if ctx.clips else grad, None, None, None, None, None, None
        x, y, step = ctx.saved_tensors
        number, divisor = _in_steps(x, step, ctx.kind), step.to(x.dtype)
        inside = (number >= ctx.low) & (number < ctx.high)
        slope = torch.where(inside, y - x, y) / divisor
        grad_step = (grad * slope).double().sum_to_size(step.shape) * ctx.scale
        return grad * inside if ctx.clips else grad, grad_step, None, None, None, None, None


def _in_steps(x: torch.Tensor, step: torch.Tensor, kind: Kind) -> torch.Tensor:
    """How many steps each number is: as formats compute it, or where a power of two makes it exact, in float32."""
    if kind == "power" and x.dtype == torch.float32:
        return x * (1.0 / step).to(torch.float32)
    return x.double() / step


def _exponents(steps: torch.Tensor) -> torch.Tensor:
    """The logarithms of powers of two."""
    exponents: torch.Tensor = torch.frexp(steps)[1]
    return exponents - 1
