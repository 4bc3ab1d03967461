"""Gradients of sign(x), which has none of its own that is of use: what stands in for it in training.

Forward, all: y = +1 where x >= 0, else -1. Backward: dL/dx = dL/dy * `slope(x)`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from netopt.errors import FileFormatError, InvalidArgument
from netopt.ops.sign import GRADIENTS
from netopt.ops.sign import sign as sign_op


def _check_positive(subject: str, value: object) -> None:
    number = isinstance(value, float | int) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type, operator]
        raise InvalidArgument(subject, expected="a number above 0", found=repr(value))


@dataclass(frozen=True)
class Estimator:
    """A gradient of sign(x). `Estimator.kinds` has them by name."""

    name: ClassVar[str]
    kinds: ClassVar[dict[str, type[Estimator]]] = {}

    def __init_subclass__(cls) -> None:
        Estimator.kinds[cls.name] = cls

    @property
    def parameter(self) -> float:
        """The number that the gradient depends on; 0 where there is none."""
        return 0.0

    def slope(self, x: torch.Tensor) -> torch.Tensor:
        """What stands in for d sign(x) / dx."""
        return GRADIENTS[self.name](x, self.parameter)

    def describe(self) -> dict[str, Any]:
        """The estimator as plain data; `estimator_from` is the inverse."""
        return {"name": self.name, **vars(self)}


@dataclass(frozen=True)
class STE(Estimator):
    """The straight-through estimator: slope 1 where |x| <= clip, else 0.

    Source: Courbariaux et al., 1609.07061, equation 4, with clip 1.
    """

    clip: float = 1.0
    name: ClassVar[str] = "ste"

    def __post_init__(self) -> None:
        _check_positive("clip of STE", self.clip)

    @property
    def parameter(self) -> float:
        return self.clip


@dataclass(frozen=True)
class Identity(Estimator):
    """Slope 1 everywhere. Source: Courbariaux et al. (BinaryConnect), 1511.00363, algorithm 1."""

    name: ClassVar[str] = "identity"


@dataclass(frozen=True)
class ApproxSign(Estimator):
    """Slope max(0, 2 - 2 |x|): that of a piecewise polynomial close to sign(x).

    Source: Liu et al. (Bi-Real Net), 1808.00278, equation 6.
    """

    name: ClassVar[str] = "approx_sign"


@dataclass(frozen=True)
class SwishSign(Estimator):
    """Slope beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)).

    Source: Darabi et al. (BNN+), 1812.11800, equation 3.
    """

    beta: float = 5.0
    name: ClassVar[str] = "swish_sign"

    def __post_init__(self) -> None:
        _check_positive("beta of SwishSign", self.beta)

    @property
    def parameter(self) -> float:
        return self.beta


def sign(x: torch.Tensor, estimator: Estimator = STE()) -> torch.Tensor:
    """+1 where x >= 0, else -1; its gradient is the estimator's. sign(0) = +1; sign(NaN) = -1."""
    signs: torch.Tensor = sign_op(x, estimator.name, estimator.parameter)
    return signs


def estimator_from(description: object) -> Estimator:
    """The inverse of `Estimator.describe`.

    Raises:
        FileFormatError: it describes none.
    """
    if isinstance(description, Mapping):
        fields = dict(description)
        kind = Estimator.kinds.get(str(fields.pop("name", "")))
        if kind is not None and set(fields) == {f.name for f in dataclasses.fields(kind)}:
            try:
                return kind(**fields)
            except InvalidArgument as error:
                raise FileFormatError("estimator", found=str(error)) from error
    raise FileFormatError("estimator", expected=f"one of {', '.join(Estimator.kinds)}", found=repr(description))
