"""Whether each weight of a layer is rounded up or down, learned from what the layer computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import CodeFormat

# Of the weight and an input what the layer gives.
Layer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# The sigmoid is stretched to these, and cut off at 0 and 1, so that it gets there.
_STRETCHED = (-0.1, 1.1)
# The exponent of the pull to 0 or 1, from the flat to the sharp; before it begins, a share of the steps without it.
_EXPONENTS, _FREE = (20.0, 2.0), 0.2


@dataclass(frozen=True, kw_only=True)
class AdaRound:
    """How long and how strongly rounding is learned.

    Attributes:
        steps: of the optimizer, Adam.
        batch: inputs of a step.
        lr: learning rate.
        pull: how strongly each weight is pulled to one of both codes.
        seed: of the choice of batches.
    """

    steps: int = 1000
    batch: int = 32
    lr: float = 0.03
    pull: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                found = repr(getattr(self, name))
                raise InvalidArgument(f"{name} of AdaRound", expected="an integer of at least 1", found=found)
        for name in ("lr", "pull"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise InvalidArgument(f"{name} of AdaRound", expected="a number above 0", found=repr(value))
        if type(self.seed) is not int:
            raise InvalidArgument("seed of AdaRound", expected="an integer", found=repr(self.seed))


def adaround(
    weight: torch.Tensor,
    format_: CodeFormat,
    layer: Layer,
    inputs: torch.Tensor,
    targets: torch.Tensor | None = None,
    *,
    options: AdaRound | None = None,
) -> torch.Tensor:
    """The weight, rounded up or down to numbers of a format so that the layer's outputs change least.

    Minimised is the mean over outputs of (target - layer(W, x))^2, summed over an output's numbers, with
    W = s clip(floor(w / s) + h(v)) and h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1), and
    pull x sum of 1 - |2 h(v) - 1|^b, where b falls from 20 to 2. Where that is no better on all inputs than rounding to
    nearest, the weight is rounded to nearest.

    Source: Nagel et al. (AdaRound), 2004.10568, equations 21 to 25.

    Args:
        weight: (outputs, ...), float32.
        format_: of the weight.
        layer: of a weight and inputs the outputs, with an activation or without.
        inputs: (number, ...), such as the layer has them in the rounded network.
        targets: (number, ...) outputs that are wanted; if not given, those of the weight as it is, for these inputs.
        options: how it is learned; `AdaRound()` if not given.

    Returns:
        As the weight, each number one of the format.

    Raises:
        InvalidArgument: there are no inputs, or other numbers of targets.
    """
    options = AdaRound() if options is None else options
    weight = weight.detach()
    with torch.no_grad():
        targets = layer(weight, inputs) if targets is None else targets
    if not len(inputs) or len(targets) != len(inputs):
        found = f"{len(inputs)} inputs, {len(targets)} targets"
        raise InvalidArgument("inputs of AdaRound", expected="at least one, each with its target", found=found)
    nearest = format_.decode(format_.encode(weight), weight.dtype)
    learned = _learned(weight, format_, layer, inputs.detach(), targets.detach(), options)
    with torch.no_grad():
        losses = [float((layer(w, inputs) - targets).square().mean()) for w in (nearest, learned)]
    return learned if losses[1] < losses[0] else nearest


def _learned(
    weight: torch.Tensor,
    format_: CodeFormat,
    layer: Layer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    options: AdaRound,
) -> torch.Tensor:
    steps = torch.tensor(format_.steps, dtype=weight.dtype).reshape(-1, *[1] * (weight.dim() - 1))
    low, high = (code - format_.zero for code in (format_.codes.start, format_.codes.stop - 1))
    lower = (weight / steps).floor()
    below, above = _STRETCHED
    # The v with which W is the weight.
    share = ((weight / steps - lower - below) / (above - below)).clamp(1e-4, 1 - 1e-4)
    v = torch.logit(share).requires_grad_()
    optimizer = torch.optim.Adam([v], options.lr)
    generator = torch.Generator().manual_seed(options.seed)
    for index in range(options.steps):
        chosen = torch.randint(len(inputs), (min(options.batch, len(inputs)),), generator=generator)
        h = (torch.sigmoid(v) * (above - below) + below).clamp(0, 1)
        outputs = layer((lower + h).clamp(low, high) * steps, inputs[chosen])
        loss = (outputs - targets[chosen]).square().sum() / _places(outputs)
        progress = (index / options.steps - _FREE) / (1 - _FREE)
        if progress >= 0:
            exponent = _EXPONENTS[0] + (_EXPONENTS[1] - _EXPONENTS[0]) * progress
            loss = loss + options.pull * (1 - (2 * h - 1).abs().pow(exponent)).sum()
        (v.grad,) = torch.autograd.grad(loss, [v])
        optimizer.step()
    codes = (lower + (v.detach() >= 0).to(weight.dtype)).clamp(low, high)
    return format_.decode((codes + format_.zero).to(format_.tensor_dtype), weight.dtype)


def _places(outputs: torch.Tensor) -> int:
    """How many outputs there are that each has all channels: examples, and the pixels of each."""
    return max(1, outputs.numel() // (outputs.shape[1] if outputs.dim() > 1 else 1))
