"""What rounding does to a value of a network: figures and histograms, summed up over many runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from netopt.numerics import FLOAT32, CodeFormat, NumberFormat

# Bins of a histogram over all codes, if there are as many; and as much again as an eighth of them on either side.
_BINS = 64
_MARGIN = 8


@dataclass(frozen=True)
class Histogram:
    """Counts of numbers in bins of equal width; those beyond are in the outermost bins.

    Attributes:
        low, high: where the first bin begins and the last one ends.
        ends: the numbers that round to the first and the last code lie between these.
        before: counts of the numbers as they were computed; empty where they are not known.
        after: counts of what they were rounded to.
    """

    low: float
    high: float
    ends: tuple[float, float]
    before: tuple[int, ...]
    after: tuple[int, ...]


class Rounding:
    """Sums over what was computed and what was stored of it, in float64."""

    def __init__(self, format_: NumberFormat) -> None:
        """Nothing has been seen yet.

        Args:
            format_: in which the numbers are stored.
        """
        self._format = format_
        self._count = self._beyond = 0
        self._signal = self._noise = 0.0
        self._low, self._high = math.inf, -math.inf
        self._bins = _bins_of(format_)
        number = 0 if self._bins is None else self._bins[2]
        self._before = torch.zeros(number, dtype=torch.int64)
        self._after = torch.zeros(number, dtype=torch.int64)

    def update(self, computed: torch.Tensor, stored: torch.Tensor) -> None:
        """Add the numbers of one run, before they were rounded and after."""
        x, y = computed.double().reshape(-1), stored.double().reshape(-1)
        finite = torch.isfinite(x)
        self._count += x.numel()
        self._beyond += int(finite.logical_not().sum())
        x, y = x[finite], y[finite]
        if not x.numel():
            return
        low, high = torch.aminmax(x)
        self._low, self._high = min(self._low, float(low)), max(self._high, float(high))
        self._signal += float(x.square().sum())
        self._noise += float((x - y).square().sum())
        if isinstance(self._format, CodeFormat) and self._bins is not None:
            least, most = self._format.bounds
            half = self._format.steps[0] / 2
            self._beyond += int(((x < least - half) | (x >= most + half)).sum())
            self._before += _counts(x, self._bins)
            self._after += _counts(y, self._bins)

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest finite number that was computed; None before there was one."""
        return (self._low, self._high) if self._low <= self._high else None

    @property
    def saturated(self) -> float | None:
        """Share of the numbers that lie beyond the codes, by more than rounding; None of other formats."""
        return self._beyond / self._count if self._bins is not None and self._count else None

    @property
    def sqnr_db(self) -> float | None:
        """10 log10 of the power of what was computed over that of the rounding; None where nothing is rounded."""
        return None if self._format == FLOAT32 or not self._count else decibels(self._signal, self._noise)

    @property
    def histogram(self) -> Histogram | None:
        """Before and after; None of formats without codes."""
        if self._bins is None or not self._count:
            return None
        assert isinstance(self._format, CodeFormat)
        least, most = self._format.bounds
        half = self._format.steps[0] / 2
        low, high, _ = self._bins
        return Histogram(
            low, high, (least - half, most + half), tuple(self._before.tolist()), tuple(self._after.tolist())
        )


def histogram_of_codes(format_: CodeFormat, codes: torch.Tensor) -> Histogram:
    """How often each code, or a few of them, stands in a constant, whose channels may have steps of their own."""
    low, high, number = _range_of_codes(format_)
    counts = _counts(codes.double().reshape(-1), (low, high, number))
    ends = (format_.codes.start - 0.5, format_.codes.stop - 0.5)
    return Histogram(low, high, ends, (), tuple(counts.tolist()))


def decibels(signal: float, noise: float) -> float:
    """10 log10 of signal over noise; infinite without noise, minus infinity without signal."""
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _bins_of(format_: NumberFormat) -> tuple[float, float, int] | None:
    """Ends and number of the bins, over the codes of values and what lies around them, several codes to a bin."""
    if not isinstance(format_, CodeFormat) or format_.is_by_channel:
        return None
    low, high, number = _range_of_codes(format_)
    step = format_.steps[0]
    return (low - format_.zero) * step, (high - format_.zero) * step, number


def _range_of_codes(format_: CodeFormat) -> tuple[float, float, int]:
    codes = format_.codes
    margin = max(1, len(codes) // _MARGIN)
    span = len(codes) + 2 * margin
    wide = max(1, len(codes) // _BINS)
    return codes.start - margin - 0.5, codes.stop + margin - 0.5, -(-span // wide)


def _counts(numbers: torch.Tensor, bins: tuple[float, float, int]) -> torch.Tensor:
    low, high, number = bins
    places = ((numbers - low) * (number / (high - low))).floor().clamp(0, number - 1)
    return torch.bincount(places.long(), minlength=number)
