"""Weights that are powers of two, or 0: multiplying by one is a shift. Each is a code of fixed point, too."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch.autograd.function import once_differentiable

from netopt.errors import InvalidArgument, InvalidType
from netopt.quantization.fixed_point.quantizer import Quantizer
from netopt.quantization.fixed_point.steps import power_of_two

# Which weights are fixed first.
Selection = Literal["largest_abs", "random"]

# Exponents of what is largest, far from those that formats do not have.
_FARTHEST = 100
# From half a power of two to the next: where a number is nearer to the next, and where it is in the logarithm.
_MEAN, _GEOMETRIC_MEAN = 0.75, math.sqrt(0.5)


class PowersOfTwo(Quantizer):
    """The nearest power of two in the logarithm, with the sign of the number.

    Forward: |y| = 2^round(log2 |x|), from 2^smallest to 2^largest. With `with_zero`, y = 0 where |x| < 2^(smallest -
    1/2). Of `bits` one is the sign's, one with `with_zero` that of 0, and the others number the exponents, down from
    `largest`. Without signs, a number below 0 becomes the smallest there is. Backward: dL/dx = dL/dy, but 0 where
    2^round(log2 |x|) is above 2^largest, and without signs below 0; with `clips=False` everywhere dL/dy.

    Source: nnabla's pow2_quantize, with n = bits, m = largest.

    Attributes:
        largest: exponent.
        smallest: exponent.
        with_zero: whether 0 is among the numbers.
        negatives: whether numbers below 0 are.
    """

    def __init__(
        self, bits: int, largest: int, *, signed: bool = True, with_zero: bool = False, clips: bool = True
    ) -> None:
        """Take a quantizer to these powers of two.

        Raises:
            InvalidArgument: no format has all of them: in 8 bits there are 7 different exponents, in 16 bits 15.
            InvalidType: an option is no truth value.
        """
        for name, value in (("signed", signed), ("with_zero", with_zero)):
            if type(value) is not bool:
                raise InvalidType(f"{name} of powers of two", expected="True or False", found=repr(value))
        numbering = bits - signed - with_zero if type(bits) is int else 0
        if not 1 <= numbering <= 16:
            expected = "at least 1 beside those of the sign and of 0"
            raise InvalidArgument("bits of powers of two", expected=expected, found=repr(bits))
        smallest = _checked_exponent(largest) - 2**numbering + 1
        code_bits, has_signs = _code_bits(smallest, largest, signed)
        super().__init__(code_bits, signed=has_signs, clips=clips)
        self.log2_step.fill_(float(smallest))
        self.largest, self.smallest, self.with_zero, self.negatives = largest, smallest, with_zero, signed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each number as a power of two, or 0; of the same type."""
        if not self.enabled:
            return x
        negative, magnitude = x < 0, _limited(x, self.smallest, self.largest)
        exponent = _nearest_exponent(magnitude, _GEOMETRIC_MEAN)
        y = power_of_two(exponent.clamp(self.smallest, self.largest)).to(x.dtype)
        if not self.negatives:
            y = torch.where(negative, 2.0**self.smallest, y)
        is_zero = x.isnan()
        if self.with_zero:
            is_zero = is_zero | (magnitude < 2.0 ** (self.smallest - 0.5)) | (negative & (not self.negatives))
        y = torch.where(is_zero, 0.0, torch.where(negative & self.negatives, -y, y))
        passes = (exponent <= self.largest) & (~negative | self.negatives) if self.clips else torch.ones_like(negative)
        return _through(x, y, passes)

    def extra_repr(self) -> str:
        """Which powers."""
        return f"{_powers(self.smallest, self.largest)}{', 0' if self.with_zero else ''}, {super().extra_repr()}"


class INQ(Quantizer):
    """Weights that become powers of two, or 0, part by part, while the others are trained to make up for it.

    With the largest magnitude s of the weights: exponents from n1 = floor(log2(4 s / 3)) down to
    n2 = n1 + 1 - 2^(bits - 2). A weight becomes the nearest of them, or 0 below 2^(n2 - 1). At each of `iterations`,
    counted in calls in training, half of those that are left are fixed, at the last of them all. What is fixed stays,
    whatever becomes of the weight that is given. In eval mode all are powers of two, so that what is measured is what
    is lowered.

    Source: Zhou et al., 1702.03044, equations 1 to 4, section 2.2; nnabla's inq_affine.

    Attributes:
        iterations: at which calls weights are fixed.
        selection: "largest_abs": those that are largest in magnitude first; "random": any.
        largest: exponent, n1.
        smallest: exponent, n2.
        iteration: the next call, a tensor without axes.
        is_fixed: of the weight's shape.
        fixed: of the weight's shape, float32: what the fixed ones are, 0 for the others.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bits: int = 4,
        *,
        iterations: tuple[int, ...] = (),
        selection: Selection = "largest_abs",
        seed: int = 0,
    ) -> None:
        """Take a quantizer for a weight; nothing is fixed yet.

        Args:
            weight: for its largest magnitude and its shape.
            bits: of a weight: one is that of the sign, and one code is that of 0.
            iterations: increasing; none fixes nothing by itself.
            selection: which are fixed first.
            seed: of a random selection.

        Raises:
            InvalidArgument: no format has all these numbers, or an option cannot be.
        """
        if type(bits) is not int or not 2 <= bits <= 5:
            raise InvalidArgument("bits of INQ", expected="an integer from 2 to 5", found=repr(bits))
        if selection not in get_args(Selection):
            raise InvalidArgument("selection of INQ", expected='"largest_abs" or "random"', found=repr(selection))
        if list(iterations) != sorted(set(iterations)) or not all(type(i) is int and i >= 0 for i in iterations):
            raise InvalidArgument("iterations of INQ", expected="increasing integers from 0", found=iterations)
        if not bool(weight.isfinite().all()):
            raise InvalidArgument("weight", expected="finite numbers", found="infinity or NaN")
        most = weight.detach().abs().max() if weight.numel() else torch.zeros(())
        largest = int(_nearest_exponent(most if most > 0 else torch.ones(()), _MEAN).clamp(-_FARTHEST, _FARTHEST))
        smallest = largest + 1 - 2 ** (bits - 2)
        super().__init__(_code_bits(smallest, largest, True)[0])
        self.log2_step.fill_(float(smallest))
        self.largest, self.smallest, self.seed = largest, smallest, seed
        self.iterations, self.selection = tuple(iterations), selection
        self.iteration: torch.Tensor
        self.is_fixed: torch.Tensor
        self.fixed: torch.Tensor
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        self.register_buffer("is_fixed", torch.zeros(weight.shape, dtype=torch.bool))
        self.register_buffer("fixed", torch.zeros(weight.shape, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The weight, of which what is fixed has no gradient; in training it counts the call.

        Raises:
            InvalidArgument: it has another shape than the weight that it was made for.
        """
        if not self.enabled:
            return x
        if x.shape != self.is_fixed.shape:
            raise InvalidArgument("weight of INQ", expected=f"{tuple(self.is_fixed.shape)}", found=tuple(x.shape))
        if self.training:
            iteration = int(self.iteration)
            if iteration in self.iterations:
                self.fix(x, 1.0 if iteration == self.iterations[-1] else 0.5)
            self.iteration += 1
            return torch.where(self.is_fixed, self.fixed.to(x.dtype), x)
        y = torch.where(self.is_fixed, self.fixed.to(x.dtype), self.nearest(x.detach()))
        return _through(x, y, ~self.is_fixed)

    @torch.no_grad()
    def fix(self, weight: torch.Tensor, share: float = 0.5) -> None:
        """Fix a share of what is left, at least one weight, at the nearest power of two to what it is now."""
        left = (~self.is_fixed).reshape(-1).nonzero()[:, 0]
        number = min(len(left), max(1, int(len(left) * share)))
        if self.selection == "random":
            generator = torch.Generator().manual_seed(self.seed + int(self.iteration))
            chosen = left[torch.randperm(len(left), generator=generator)[:number]]
        else:
            chosen = left[weight.reshape(-1)[left].abs().argsort(descending=True, stable=True)[:number]]
        self.is_fixed.view(-1)[chosen] = True
        self.fixed.view(-1)[chosen] = self.nearest(weight).reshape(-1)[chosen].to(self.fixed.dtype)

    def nearest(self, weight: torch.Tensor) -> torch.Tensor:
        """All weights as powers of two, or 0."""
        magnitude = _limited(weight, self.smallest, self.largest)
        exponent = _nearest_exponent(magnitude, _MEAN).clamp(self.smallest, self.largest)
        y = torch.copysign(power_of_two(exponent).to(weight.dtype), weight)
        return torch.where((magnitude < 2.0 ** (self.smallest - 1)) | weight.isnan(), 0.0, y)

    @property
    def is_done(self) -> bool:
        """Whether all weights are fixed."""
        return bool(self.is_fixed.all())

    def extra_repr(self) -> str:
        """Which powers, and how many weights are fixed."""
        fixed = f"{int(self.is_fixed.sum())} of {self.is_fixed.numel()} fixed"
        return f"{_powers(self.smallest, self.largest)}, 0, {fixed}, {super().extra_repr()}"


def _checked_exponent(largest: object) -> int:
    if type(largest) is not int or abs(largest) > _FARTHEST:
        expected = f"an integer from {-_FARTHEST} to {_FARTHEST}"
        raise InvalidArgument("largest exponent", expected=expected, found=repr(largest))
    return largest


def _code_bits(smallest: int, largest: int, signed: bool) -> tuple[int, bool]:
    """Of the codes that are all these powers of two, if one step is the smallest: bits, and whether they have signs."""
    bits = largest - smallest + 1 + signed
    if bits <= 8:
        return max(2, bits), signed
    if largest - smallest + 2 > 16:
        raise InvalidArgument(
            "powers of two",
            expected="at most 15 different exponents, which 16 bits have",
            found=_powers(smallest, largest),
            fix="take fewer bits",
        )
    return 16, True


def _powers(smallest: int, largest: int) -> str:
    return f"2^{smallest} to 2^{largest}"


def _limited(x: torch.Tensor, smallest: int, largest: int) -> torch.Tensor:
    """Magnitudes, of which 0 and infinity have no exponent: to powers that are beyond the others anyway."""
    return x.detach().abs().clamp(2.0 ** (smallest - 2), 2.0 ** (largest + 2))


def _nearest_exponent(magnitude: torch.Tensor, bound: float) -> torch.Tensor:
    """floor(log2 m), and one more from `bound` on, which is relative to the next power of two."""
    mantissa, exponent = torch.frexp(magnitude)
    return exponent.to(torch.int64) - 1 + (mantissa >= bound).to(torch.int64)


def _through(x: torch.Tensor, y: torch.Tensor, passes: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = _StraightThrough.apply(x, y, passes)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    """Numbers in place of others, whose gradient goes through where it passes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, passes: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(passes)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (passes,) = ctx.saved_tensors
        return grad * passes, None, None
