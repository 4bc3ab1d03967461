"""What low-bit training takes beside gradients: stages, clipping, a pull to +-1, an optimizer of flips."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from netopt.errors import InvalidArgument, InvalidType
from netopt.quantization.signs.block import low_bit_layers
from netopt.transform.constraints import Latent


def binarize_weights(model: nn.Module) -> nn.Module:
    """A new model in the second stage: layers whose inputs alone were binary now have binary weights, too.

    Raises:
        InvalidType: it is no module.
        InvalidArgument: it has no layer in the first stage.
    """
    if not isinstance(model, nn.Module):
        raise InvalidType("model", expected="a torch.nn.Module", found=type(model).__name__)
    model = copy.deepcopy(model)
    waiting = [layer for layer in low_bit_layers(model) if layer.final_form is not None]
    if not waiting:
        raise InvalidArgument(
            "model", expected="a layer in the first of two stages", found="none", fix="transform with two_stages=True"
        )
    for layer in waiting:
        assert layer.final_form is not None
        layer.weight_form, layer.final_form = layer.final_form, None
    return model


def constrain(model: nn.Module) -> None:
    """Clip the latent weights of binary layers to [-1, 1]: to be called after each step of an optimizer.

    `netopt.retrain` does it by itself.
    """
    for module in model.modules():
        if isinstance(module, Latent):
            module.constrain()


def pull_to_signs(strength: float = 5e-6) -> Callable[[nn.Module], torch.Tensor]:
    """A term of the loss, `strength` times the sum of |1 - w^2| over latent weights, that pulls them to +1 and -1.

    For `netopt.retrain(..., penalty=pull_to_signs())`.

    Source: CNTK's binary_convnet.py, with strength 5e-6; Tang et al., AAAI 2017, equation 4.
    """
    if not _is_number(strength) or strength < 0:
        raise InvalidArgument("strength", expected="a number of at least 0", found=repr(strength))

    def penalty(model: nn.Module) -> torch.Tensor:
        latent = [w for layer in low_bit_layers(model) for w in layer.latent_weights()]
        if not low_bit_layers(model):
            raise InvalidArgument("model", expected="low-bit layers", found="none", fix="leave penalty out")
        if not latent:  # in the first of two stages
            return next(model.parameters()).new_zeros(())
        return strength * torch.stack([(1 - w.square()).abs().sum() for w in latent]).sum()

    return penalty


class Bop(torch.optim.Optimizer):
    """The binary optimizer: latent weights are signs, and an average of their gradients flips them.

    m <- (1 - gamma) m + gamma g, for each latent weight w; then w <- -w where |m| > threshold and m has the sign of w.
    All other parameters are trained by Adam, with the learning rate of the schedule. For `netopt.retrain`, which marks
    the group of latent weights: `optimizer=functools.partial(Bop, gamma=1e-4)`.

    Source: Helwegen et al., 1906.02107, algorithm 1.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, *, gamma: float = 1e-4, threshold: float = 1e-8
    ) -> None:
        """Take parameter groups; those with "latent": True are flipped.

        Args:
            params: groups, or parameters, which then are all trained by Adam.
            lr: of Adam.
            gamma: how fast the average forgets, from 0 to 1.
            threshold: the average gradient from which on a weight flips.

        Raises:
            InvalidArgument: a number is out of range.
        """
        if not _is_number(lr) or lr < 0:
            raise InvalidArgument("lr of Bop", expected="a number of at least 0", found=repr(lr))
        if not _is_number(gamma) or not 0 < gamma <= 1:
            raise InvalidArgument("gamma of Bop", expected="a number above 0, up to 1", found=repr(gamma))
        if not _is_number(threshold) or threshold < 0:
            raise InvalidArgument("threshold of Bop", expected="a number of at least 0", found=repr(threshold))
        super().__init__(params, {"lr": lr, "gamma": gamma, "threshold": threshold, "latent": False})
        for group in self.param_groups:
            for p in group["params"] if group["latent"] else ():
                with torch.no_grad():
                    p.copy_(torch.where(p >= 0, 1.0, -1.0))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; gradients are those of the last backward pass."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    (self._flip if group["latent"] else self._adam)(p, p.grad, group)

    def _flip(self, p: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        average = state.setdefault("average", torch.zeros_like(p))
        average.lerp_(grad, group["gamma"])
        flips = (average.abs() > group["threshold"]) & (average * p > 0)
        p.mul_(torch.where(flips, -1.0, 1.0))

    def _adam(self, p: torch.Tensor, grad: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state.update(step=torch.zeros(()), first=torch.zeros_like(p), second=torch.zeros_like(p))
        state["step"] += 1
        state["first"].lerp_(grad, 0.1)
        state["second"].lerp_(grad.square(), 0.001)
        step = float(state["step"])
        first, second = state["first"] / (1 - 0.9**step), state["second"] / (1 - 0.999**step)
        p.sub_(group["lr"] * first / (second.sqrt() + 1e-8))


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
