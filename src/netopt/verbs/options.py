"""What `netopt.optimize` does with the layers that techniques replaced: one object, checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass

from netopt.errors import InvalidArgument, InvalidType
from netopt.example import Example
from netopt.program.options import Lowering
from netopt.transform.apply import KeepIf, Train, check_keep_if
from netopt.transform.observe import Calibration


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """The options of `netopt.optimize`, which says more of them.

    Attributes:
        train: trains the transformed model.
        lower: whether to lower the result.
        example: an input.
        calibration: inputs for techniques.
        keep_if: which replacements are kept; None for what is the default with or without an example.
        margin: share of a layer's time that must be saved.
        iterative: train after each replacement.
        recover: a short training after each replacement.
        lowering: how the result is lowered, and measured.

    Raises:
        InvalidArgument: what was asked for cannot be done, or a value is out of range.
        InvalidType: a value is of another type.
    """

    train: Train | None
    lower: bool
    example: Example | None
    calibration: Calibration | None
    keep_if: KeepIf | None
    margin: float
    iterative: bool
    recover: Train | None
    lowering: Lowering

    def __post_init__(self) -> None:
        self._check_types()
        if self.example is None and (self.lower or self.keep_if == "faster"):
            what = "lower=True" if self.lower else 'keep_if="faster"'
            raise InvalidArgument(
                "example", expected="an input for the shapes", found="none", fix=f"give example=... with {what}"
            )
        if not isinstance(self.margin, float | int) or isinstance(self.margin, bool) or not 0 <= self.margin < 1:
            raise InvalidArgument("margin", expected="a share from 0, below 1", found=repr(self.margin))
        if self.iterative and self.train is None and self.recover is None:
            raise InvalidArgument("iterative", expected="train or recover", found="neither", fix="give recover=...")
        if self.policy == "faster" and not self.lowering.runs_here:
            raise InvalidArgument(
                "keep_if",
                expected=f'"smaller" or "always" with the target {self.lowering.target}, which this CPU cannot measure',
                found='"faster"' if self.keep_if else 'the default with an example, "faster"',
                fix="give one of these, or measure on such a machine",
            )

    def _check_types(self) -> None:
        for name in ("lower", "iterative"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidType(name, expected="True or False", found=repr(getattr(self, name)))
        if self.keep_if is not None:
            check_keep_if(self.keep_if)
        if isinstance(self.example, list):
            raise InvalidType("example", expected="a tensor, a tuple of arguments or a dict of them", found="list")
        for name, function in (("train", self.train), ("recover", self.recover)):
            if function is not None and not callable(function):
                raise InvalidType(name, expected="a function of the model", found=repr(function))

    @property
    def policy(self) -> KeepIf:
        """What decides which replacements are kept."""
        return self.keep_if or ("smaller" if self.example is None else "faster")

    @property
    def trains_between(self) -> Train | None:
        """What is called after each replacement."""
        return self.recover or (self.train if self.iterative else None)
