"""How large a step between codes is, for numbers of which statistics were seen: five ways to find it."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument, InvalidType
from netopt.numerics import CodeFormat
from netopt.quantization.fixed_point.entropy import MOST_BINS_A_STEP, divergences
from netopt.quantization.fixed_point.observer import Bins, Observer, bin_errors
from netopt.quantization.fixed_point.steps import Kind, make_format, round_steps

# Below the step that cuts nothing off, how many octaves are searched, and how many steps are tried in each at first,
# and then around the best.
_OCTAVES = 6
_COARSE, _FINE = 8, 64
# The error of so few numbers jumps from one scale to the next: of those of 8 digits nearly all are tried.
_FEW = 512


@dataclass(frozen=True)
class Method(ABC):
    """How steps are found: a rule between cutting off what is large and rounding what is small."""

    def place(self, observer: Observer, bits: int, signed: bool, kind: Kind = "power") -> CodeFormat:
        """The format for numbers like those that were seen. Of zeros alone one that has numbers up to 1.

        Args:
            observer: what was seen.
            bits: of a code.
            signed: whether there are codes below 0; without them, numbers below 0 become 0, and are not looked at.
            kind: "power": steps are powers of two; "real": numbers of 8 significant bits.

        Raises:
            InvalidArgument: nothing was seen, or there are no such codes.
        """
        codes = make_format(torch.ones(()), bits, signed, kind).codes
        if not observer.count:
            raise InvalidArgument("calibration", expected="numbers to place a format for", found="none")
        return make_format(self.step(observer, codes, kind), bits, signed, kind)

    @abstractmethod
    def step(self, observer: Observer, codes: range, kind: Kind) -> torch.Tensor:
        """The step, of shape (), float64."""

    def row_steps(self, rows: torch.Tensor, codes: range, kind: Kind) -> torch.Tensor:
        """The step for each row of numbers.

        Args:
            rows: (rows, n).
            codes: that there are.
            kind: of steps.

        Returns:
            (rows,) float64.
        """
        steps = []
        for row in rows:
            observer = Observer()
            observer.update(row)
            steps.append(self.step(observer, codes, kind))
        return torch.stack(steps)


@dataclass(frozen=True)
class MinMax(Method):
    """The least step with which no number is cut off.

    Attributes:
        moving: take the moving averages of the batches' smallest and largest numbers for the range.

    Source: Jacob et al., 1712.05877, section 3.1.
    """

    moving: bool = False

    def __post_init__(self) -> None:
        if type(self.moving) is not bool:
            raise InvalidType("moving of MinMax", expected="True or False", found=repr(self.moving))

    def step(self, observer: Observer, codes: range, kind: Kind) -> torch.Tensor:
        low, high = (observer.moving_min, observer.moving_max) if self.moving else (observer.min, observer.max)
        return _step_for(_double(low), _double(high), codes, kind)

    def row_steps(self, rows: torch.Tensor, codes: range, kind: Kind) -> torch.Tensor:
        return _step_for(*rows.double().aminmax(dim=1), codes, kind)


@dataclass(frozen=True)
class Percentile(Method):
    """The least step with which this percentage of the numbers, by magnitude, is not cut off.

    Attributes:
        percent: above 0, up to 100.

    Source: Wu et al., 2004.09602, section 3.3.
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        number = isinstance(self.percent, int | float) and not isinstance(self.percent, bool)
        if not number or not 0 < self.percent <= 100:
            raise InvalidArgument("percent of Percentile", expected="above 0, up to 100", found=repr(self.percent))

    def step(self, observer: Observer, codes: range, kind: Kind) -> torch.Tensor:
        bins = _seen_by(observer, codes)
        # Those that may be cut off, from the largest down.
        allowed = observer.count * (1.0 - self.percent / 100.0)
        above = bins.counts.flip(0).cumsum(0).flip(0)
        at = int((above > allowed).sum()) - 1
        if at < 0:
            return _step_for(_double(0.0), _double(0.0), codes, kind)
        share = (allowed - (above[at] - bins.counts[at])) / bins.counts[at]
        limit = bins.high[at] - share * (bins.high[at] - bins.low[at])
        return _step_for(_double(0.0), limit, codes, kind)


@dataclass(frozen=True)
class MSE(Method):
    """The step with the least sum of squared differences between numbers and what their codes stand for."""

    def step(self, observer: Observer, codes: range, kind: Kind) -> torch.Tensor:
        first = MinMax().step(observer, codes, kind).reshape(1)
        return _least_error(first, kind, lambda steps: observer.errors(steps[:, 0], codes)[:, None])[0]

    def row_steps(self, rows: torch.Tensor, codes: range, kind: Kind) -> torch.Tensor:
        low, high = float(codes.start), float(codes.stop - 1)
        buffers = torch.empty_like(rows), torch.empty_like(rows)

        def errors(steps: torch.Tensor) -> torch.Tensor:
            return torch.stack([_row_errors(rows, row.to(rows.dtype)[:, None], low, high, buffers) for row in steps])

        parts = _FINE if rows.shape[1] <= _FEW else _COARSE
        return _least_error(MinMax().row_steps(rows, codes, kind), kind, errors, parts)


@dataclass(frozen=True)
class KL(Method):
    """The step with which the distribution of the rounded numbers tells the most of their own; see `divergences`.

    More than 8 bits cut nothing off.
    """

    def step(self, observer: Observer, codes: range, kind: Kind) -> torch.Tensor:
        first = MinMax().step(observer, codes, kind)
        bins = _seen_by(observer, codes)
        if len(codes) > 256 or not len(bins.counts):
            return first
        octaves = int(math.log2(MOST_BINS_A_STEP))
        steps = round_steps(first * _octaves(0, -octaves, 1 if kind == "power" else _COARSE)[:, 0], kind)
        found = divergences(bins, float(first), steps, codes.stop - 1)
        return steps[int((found <= found.min()).nonzero()[0])]


@dataclass(frozen=True)
class SQNR(Method):
    """The step that has the best ratio of signal to noise for a normal distribution with the same power, rounded up.

    Numbers that are 0 are not counted: what a ReLU leaves is half of a normal distribution.

    Source: Lin et al., 1511.06393, section 3.2.
    """

    def step(self, observer: Observer, codes: range, kind: Kind) -> torch.Tensor:
        number = observer.count - observer.zeros
        if not number:
            return MinMax().step(observer, codes, kind)
        power = observer.square_sum / number
        return round_steps(_double(math.sqrt(power) * _normal_step(codes)), kind, up=True)


# --- steps


def _double(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _step_for(low: torch.Tensor, high: torch.Tensor, codes: range, kind: Kind) -> torch.Tensor:
    """The least step with which numbers from `low` to `high` have a nearest code; of zeros alone that for up to 1."""
    wanted = high / (codes.stop - 0.5)
    if codes.start < 0:
        wanted = torch.maximum(wanted, low / (codes.start - 0.5))
    # At exactly half a step beyond, the nearest code is the next one, which is not there.
    wanted = torch.where(wanted > 0, wanted * (1.0 + 2.0**-50), 1.0 / codes.stop)
    return round_steps(wanted, kind, up=True)


def _seen_by(observer: Observer, codes: range) -> Bins:
    """The magnitudes that codes can be near to: of numbers of both signs, or of those above 0."""
    return observer.magnitudes() if codes.start < 0 else observer.bins()[0]


def _least_error(
    first: torch.Tensor, kind: Kind, errors: Callable[[torch.Tensor], torch.Tensor], parts: int = _COARSE
) -> torch.Tensor:
    """Of each row the step with the least error, from that which cuts nothing off downward; the larger of equal ones.

    Args:
        first: (rows,) where the search begins.
        kind: of steps.
        errors: of steps (k, rows), the errors (k, rows).
        parts: how many real steps of an octave are tried at first.
    """
    if kind == "power":
        return _first_of_least(round_steps(first * _octaves(0, -_OCTAVES, 1), kind), errors)
    coarse = _first_of_least(round_steps(first * _octaves(0, -_OCTAVES, parts), kind), errors)
    near = round_steps(coarse * _octaves(1 / parts, -1 / parts, _FINE * parts // _COARSE), kind)
    return _first_of_least(torch.minimum(near, first), errors)


def _octaves(start: float, stop: float, parts: int) -> torch.Tensor:
    """Factors (k, 1) from 2^start down to 2^stop, so many an octave."""
    number = round((start - stop) * parts) + 1
    return torch.linspace(start, stop, number, dtype=torch.float64).exp2()[:, None]


def _first_of_least(steps: torch.Tensor, errors: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    found = errors(steps)
    at = (found <= found.amin(0)).to(torch.int8).argmax(0)
    return steps.gather(0, at[None])[0]


def _row_errors(
    rows: torch.Tensor,
    steps: torch.Tensor,
    low: float,
    high: float,
    buffers: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """The sum of squared errors of each row, in float64; ties between codes, which are as good, may go either way."""
    scaled, codes = buffers
    torch.div(rows, steps, out=scaled)
    torch.round(scaled, out=codes).clamp_(low, high)
    squares = scaled.sub_(codes).square_()
    return squares.sum(1, dtype=torch.float64) * steps[:, 0].double().square()


@functools.cache
def _normal_step(codes: range) -> float:
    """The best step for numbers of a normal distribution with variance 1; without codes below 0, of its upper half."""
    edges = torch.linspace(0.0, 8.0, 4001, dtype=torch.float64)
    counts = torch.erf(edges / math.sqrt(2.0)).diff()
    bins = Bins(edges[:-1], edges[1:], counts)
    steps = torch.linspace(-16.0, 1.0, 17 * 64 + 1, dtype=torch.float64).exp2()
    errors = bin_errors(bins, steps, codes.stop - 1)
    if codes.start < 0:
        errors += bin_errors(bins, steps, -codes.start)
    return float(steps[errors.argmin()])
