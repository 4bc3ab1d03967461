"""How low-bit weights and inputs are written: as sums of signs with scales.

A form turns a tensor into terms, pairs of a scale and a tensor of signs (or of -1, 0 and 1), with
tensor ~ sum of scale * signs. A layer computes one product of signs for each pair of terms, and multiplies by both
scales after it: in integers, as the kernels do.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from netopt.errors import FileFormatError, InvalidArgument, InvalidType
from netopt.quantization.signs.estimators import STE, Estimator, Identity, estimator_from, sign

# A scale, or None for 1, and what it multiplies.
Term = tuple[torch.Tensor | None, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Form(ABC):
    """A low-bit form of a tensor. `Form.kinds` has all by name."""

    name: ClassVar[str]
    kinds: ClassVar[dict[str, type[Form]]] = {}

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            Form.kinds[cls.name] = cls

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits of an element."""

    def describe(self) -> dict[str, Any]:
        """The form as plain data; `form_from` is the inverse."""
        fields = {k: v.describe() if isinstance(v, Estimator) else v for k, v in vars(self).items()}
        return {"name": self.name, **fields}


@dataclass(frozen=True, kw_only=True)
class WeightForm(Form):
    """A form of weights (out, ...); scales are (out,)."""

    # Whether the weights are latent: only their signs are used, and they are kept in [-1, 1], where its gradient is.
    clips: ClassVar[bool] = False

    @property
    def scales(self) -> int:
        """Scales of an output."""
        return 0

    @abstractmethod
    def terms(self, weight: torch.Tensor, training: bool) -> list[Term]:
        """The weights as a sum of scales times signs."""


@dataclass(frozen=True, kw_only=True)
class InputForm(Form):
    """A form of inputs (batch, ...); scales are (batch,)."""

    @abstractmethod
    def terms(self, x: torch.Tensor) -> list[Term]:
        """The inputs as a sum of scales times signs."""


@dataclass(frozen=True, kw_only=True)
class FloatWeights(WeightForm):
    """The weights as they are: the first of two stages of training, in which inputs alone are binary."""

    name: ClassVar[str] = "float weights"

    @property
    def bits(self) -> int:
        return 32

    def terms(self, weight: torch.Tensor, training: bool) -> list[Term]:
        return [(None, weight)]


@dataclass(frozen=True, kw_only=True)
class SignWeights(WeightForm):
    """W ~ alpha sign(W), one bit a weight.

    Forward: alpha = mean |W| for each output with `scaled`, else 1. With `stochastic`, in training the sign is +1 with
    probability clip((W + 1) / 2, 0, 1). Backward: dL/dW = alpha slope(W) g + (sum of g sign(W)) sign(W) / n over the n
    weights of the output, with g = dL/d(alpha sign(W)); the second term is that of alpha, only with `scaled`, and 0
    where W = 0. Where the signs were drawn, slope(W) is 1, and they stand for sign(W) in the sum.

    Source: Rastegari et al. (XNOR-Net), 1603.05279, equation 6; Courbariaux et al. (BinaryConnect), 1511.00363,
    equations 1 to 3.
    """

    scaled: bool = True
    stochastic: bool = False
    estimator: Estimator = field(default_factory=STE)
    name: ClassVar[str] = "sign"
    clips: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_estimator(self.estimator)
        for name in ("scaled", "stochastic"):
            if type(getattr(self, name)) is not bool:
                raise InvalidType(name, expected="True or False", found=repr(getattr(self, name)))

    @property
    def scales(self) -> int:
        return int(self.scaled)

    @property
    def bits(self) -> int:
        return 1

    def terms(self, weight: torch.Tensor, training: bool) -> list[Term]:
        alpha = mean_magnitude(weight) if self.scaled else None
        if self.stochastic and training:
            # W + u >= 0 for u uniform in [-1, 1): with probability (W + 1) / 2.
            noise = torch.rand_like(weight).mul_(2).sub_(1)
            return [(alpha, sign(weight + noise, Identity()))]
        return [(alpha, sign(weight, self.estimator))]


@dataclass(frozen=True, kw_only=True)
class TernaryWeights(WeightForm):
    """W ~ alpha T with T in {-1, 0, 1}.

    Forward: delta = 0.7 mean |W| for each output; T = 1 where W >= delta, -1 where W < -delta, else 0; alpha = mean |W|
    where T is not 0. Backward: dL/dW = alpha g, with g = dL/d(alpha T); alpha is taken for a constant.

    Source: Li et al. (TWN), 1605.04711, equations 5 and 6.
    """

    name: ClassVar[str] = "ternary"

    @property
    def scales(self) -> int:
        return 2

    @property
    def bits(self) -> int:
        return 2

    def terms(self, weight: torch.Tensor, training: bool) -> list[Term]:
        magnitude = weight.detach().abs().flatten(1)
        delta = 0.7 * magnitude.mean(1)
        along = delta.reshape(-1, *[1] * (weight.dim() - 1))
        parts = [sign(weight - along, Identity()), sign(weight + along, Identity())]
        ternary = (parts[0] + parts[1]) * 0.5
        kept = ternary.detach().abs().flatten(1)
        alpha = (magnitude * kept).sum(1) / kept.sum(1).clamp_min(1)
        if training:
            return [(alpha, ternary)]
        # For kernels: T is half the sum of two signs.
        return [(alpha * 0.5, part) for part in parts]


@dataclass(frozen=True, kw_only=True)
class ResidualWeights(WeightForm):
    """W ~ sum over k terms of a_i sign(r_i): each term binarizes what the ones before it left.

    Forward: r_0 = W, a_i = mean |r_i| for each output, r_(i+1) = r_i - a_i sign(r_i). Backward: through each term as if
    r_i were W less a constant: dL/dW = sum of a_i 1(|r_i| <= k) g, and the terms of a_i as in `SignWeights`.

    Source: Li et al. (HORQ), ICCV 2017, equations 4 to 9; the clipping at k is that of CNTK's CustomMultibit.
    """

    number: int = 2
    name: ClassVar[str] = "residual"

    def __post_init__(self) -> None:
        _check_number(self.number)

    @property
    def scales(self) -> int:
        return self.number

    @property
    def bits(self) -> int:
        return self.number

    def terms(self, weight: torch.Tensor, training: bool) -> list[Term]:
        return _residual_terms(weight, self.number)


@dataclass(frozen=True, kw_only=True)
class SignInputs(InputForm):
    """x ~ sign(x), one bit a number; the gradient is the estimator's.

    Source: Courbariaux et al., 1609.07061, equations 1 and 4.
    """

    estimator: Estimator = field(default_factory=STE)
    name: ClassVar[str] = "sign of inputs"

    def __post_init__(self) -> None:
        _check_estimator(self.estimator)

    @property
    def bits(self) -> int:
        return 1

    def terms(self, x: torch.Tensor) -> list[Term]:
        return [(None, sign(x, self.estimator))]


@dataclass(frozen=True, kw_only=True)
class ResidualInputs(InputForm):
    """x ~ sum over k terms of b_i sign(r_i), with r_0 = x, b_i = mean |r_i| for each example, as `ResidualWeights`."""

    number: int = 2
    name: ClassVar[str] = "residual of inputs"

    def __post_init__(self) -> None:
        _check_number(self.number)

    @property
    def bits(self) -> int:
        return self.number

    def terms(self, x: torch.Tensor) -> list[Term]:
        return _residual_terms(x, self.number)


def _residual_terms(tensor: torch.Tensor, number: int) -> list[Term]:
    """Each term binarizes what the ones before it left; scales are those of the first axis."""
    result: list[Term] = []
    rest = tensor
    for _ in range(number):
        scale, signs = mean_magnitude(rest), sign(rest, STE(number))
        result.append((scale, signs))
        rest = rest - (scale.reshape(-1, *[1] * (tensor.dim() - 1)) * signs).detach()
    return result


def mean_magnitude(tensor: torch.Tensor) -> torch.Tensor:
    """Mean |t| over all axes but the first."""
    return tensor.abs().mean(tuple(range(1, tensor.dim())))


def form_from(description: object) -> Form:
    """The inverse of `Form.describe`.

    Raises:
        FileFormatError: it describes none.
    """
    if isinstance(description, Mapping):
        fields = dict(description)
        kind = Form.kinds.get(str(fields.pop("name", "")))
        types = {"scaled": bool, "stochastic": bool, "number": int, "estimator": dict}
        right = kind is not None and set(fields) == {f.name for f in dataclasses.fields(kind)}
        if right and all(type(value) is types.get(key) for key, value in fields.items()):
            assert kind is not None
            if "estimator" in fields:
                fields["estimator"] = estimator_from(fields["estimator"])
            try:
                return kind(**fields)
            except InvalidArgument as error:
                raise FileFormatError("form", found=str(error)) from error
    raise FileFormatError("form", expected=f"one of {', '.join(Form.kinds)} with its fields", found=repr(description))


def _check_estimator(estimator: object) -> None:
    if not isinstance(estimator, Estimator) or type(estimator) is Estimator:
        raise InvalidType("estimator", expected="STE(), ApproxSign(), SwishSign() or Identity()", found=repr(estimator))


def _check_number(number: object) -> None:
    if type(number) is not int or not 1 <= number <= 8:
        raise InvalidArgument("number of terms", expected="an integer from 1 to 8", found=repr(number))
