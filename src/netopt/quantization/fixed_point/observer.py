"""What the numbers of a tensor are like, in one pass over any amount of them: range, power, and a histogram."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from netopt.errors import InvalidArgument
from netopt.numerics import CodeFormat

# Numbers that are looked at together: what is computed on the way stays in the cache.
_PIECE = 2**18
# The upper 16 bits of a float32: its sign, its exponent, and 7 bits of its mantissa. Each is a bin.
_BINS = 2**16
# The first bin of infinities and NaN, of magnitudes.
_INFINITE = 0x7F80


@dataclass(frozen=True)
class Bins:
    """Magnitudes of one sign, bin by bin, from small to large, without those that are empty and that of 0.

    Attributes:
        low: (bins,) the smallest magnitude of each bin, float64.
        high: (bins,) the largest.
        counts: (bins,) how many numbers are in it, float64.
    """

    low: torch.Tensor
    high: torch.Tensor
    counts: torch.Tensor

    def above(self, limit: float) -> float:
        """How many are larger, if those of a bin lie evenly in it."""
        shares = ((self.high - limit) / (self.high - self.low)).clamp(0.0, 1.0)
        return float((shares * self.counts).sum())


class Observer:
    """Statistics of numbers that are seen batch by batch, in 512 KB, however many they are.

    The histogram has 128 bins between any two powers of two, for each sign, over the whole range of float32: bins need
    no range that is known before, are as fine for the many small numbers as for the few large ones, and no boundary
    between two codes of 8 signed bits is inside one, if the step is a power of two.

    Attributes:
        count: numbers that were seen.
        min: the smallest of them; infinite before any.
        max: the largest.
        moving_min: the moving average of the batches' smallest.
        moving_max: the moving average of the batches' largest.
        square_sum: of all numbers.
    """

    def __init__(self, *, decay: float = 0.99) -> None:
        """Begin with nothing seen.

        Args:
            decay: how much of the moving averages is kept with each batch, from 0 to below 1.

        Raises:
            InvalidArgument: it is out of range.
        """
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
            raise InvalidArgument("decay of an observer", expected="a number from 0 to below 1", found=repr(decay))
        self._decay = float(decay)
        self._counts = torch.zeros(_BINS, dtype=torch.int64)
        self.count = 0
        self.min, self.max = math.inf, -math.inf
        self.moving_min, self.moving_max = 0.0, 0.0
        self.square_sum = 0.0

    def update(self, numbers: torch.Tensor) -> None:
        """See a batch.

        Args:
            numbers: of any shape and floating type.

        Raises:
            InvalidArgument: some are infinite or NaN.
        """
        flat = numbers.detach().reshape(-1).float().cpu()
        if not len(flat):
            return
        low, high = (float(bound) for bound in flat.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            bad = int((~flat.isfinite()).sum())
            raise InvalidArgument("calibration", expected="finite numbers", found=f"{bad} infinite or NaN")
        for piece in torch.split(flat, _PIECE):
            self._counts += torch.bincount((piece.view(torch.int32) >> 16).bitwise_and_(0xFFFF), minlength=_BINS)
            self.square_sum += float(piece.double().square_().sum())
        decay = self._decay if self.count else 0.0
        self.moving_min = decay * self.moving_min + (1 - decay) * low
        self.moving_max = decay * self.moving_max + (1 - decay) * high
        self.min, self.max = min(self.min, low), max(self.max, high)
        self.count += len(flat)

    @classmethod
    def merged(cls, observers: Iterable[Observer]) -> Observer:
        """What one had seen that saw all: of values that are to share a format.

        Moving averages are the widest among theirs.
        """
        result = cls()
        for other in observers:
            if other.count:
                result.moving_min = min(result.moving_min, other.moving_min) if result.count else other.moving_min
                result.moving_max = max(result.moving_max, other.moving_max) if result.count else other.moving_max
            result._counts += other._counts
            result.count += other.count
            result.min, result.max = min(result.min, other.min), max(result.max, other.max)
            result.square_sum += other.square_sum
        return result

    @property
    def largest(self) -> float:
        """The largest magnitude; 0 before any number."""
        return max(self.max, -self.min, 0.0) if self.count else 0.0

    @property
    def zeros(self) -> int:
        """How many numbers are 0, or smaller in magnitude than 2^-133, which are denormal."""
        return int(self._counts[0] + self._counts[_BINS // 2])

    def bins(self) -> tuple[Bins, Bins]:
        """The histogram: of the numbers above 0, and of the magnitudes of those below."""
        halves = self._counts.reshape(2, -1)[:, :_INFINITE]
        return _bins_of(halves[0], max(self.max, 0.0)), _bins_of(halves[1], max(-self.min, 0.0))

    def magnitudes(self) -> Bins:
        """The histogram of magnitudes, of numbers of both signs."""
        halves = self._counts.reshape(2, -1)[:, :_INFINITE]
        return _bins_of(halves.sum(0), self.largest)

    def errors(self, steps: torch.Tensor, codes: range) -> torch.Tensor:
        """What rounding to codes would cost: the sum of squared differences, if the numbers of a bin lie evenly in it.

        Args:
            steps: (k,) between codes, float64.
            codes: that there are, of which 0 is the code of 0.

        Returns:
            (k,) float64.
        """
        above, below = self.bins()
        return bin_errors(above, steps, codes.stop - 1) + bin_errors(below, steps, -codes.start)

    def sqnr(self, format_: CodeFormat) -> float:
        """Signal to noise of these numbers in a format, in dB: 10 log10 of the sum of x^2 over that of the errors^2."""
        steps, codes = torch.tensor(format_.steps[:1], dtype=torch.float64), _centred(format_)
        noise = float(self.errors(steps, codes))
        if noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self.square_sum / noise)

    def saturated(self, format_: CodeFormat) -> float:
        """The share of the numbers, from 0 to 1, that no code is nearest to: they become the first or the last code."""
        above, below = self.bins()
        step, codes = format_.steps[0], _centred(format_)
        beyond = above.above((codes.stop - 0.5) * step) + below.above((0.5 - codes.start) * step)
        return beyond / max(1, self.count)


def _centred(format_: CodeFormat) -> range:
    """Its codes as whole numbers of steps: 0 is the code of 0."""
    assert not format_.is_by_channel, "values have one step"
    return range(format_.codes.start - format_.zero, format_.codes.stop - format_.zero)


def _bins_of(counts: torch.Tensor, largest: float) -> Bins:
    """The bins of magnitudes by their index, the upper bits of a float32; the last ends at the largest number.

    Then numbers that many others are equal to because something has cut them off there, as relu6 does, lie where they
    are.
    """
    indices = counts.nonzero()[:, 0].to(torch.int32)
    indices = indices[indices > 0]
    low = (indices << 16).view(torch.float32).double()
    high = ((indices + 1) << 16).view(torch.float32).double()
    # A width of 0 would be divided by.
    narrow = low * (1.0 + 2.0**-20)
    return Bins(low, torch.maximum(high.clamp(max=largest), narrow), counts[indices.long()].double())


def bin_errors(bins: Bins, steps: torch.Tensor, last: int) -> torch.Tensor:
    """For each step the sum of squared errors of magnitudes, of which codes from 0 to `last` stand for multiples."""
    low, high = bins.low / steps[:, None], bins.high / steps[:, None]
    mean = (_integral(high, last) - _integral(low, last)) / (high - low)
    return (mean.clamp_(min=0.0) * bins.counts).sum(1) * steps.square()


def _integral(t: torch.Tensor, last: int) -> torch.Tensor:
    """The integral from 0 to t of (x - q)^2, where q is the whole number from 0 to `last` that is nearest to x."""
    # Between two halves the square of the distance has the integral 1/12.
    code = (t + 0.5).floor_().clamp_(max=last)
    return (t - code) ** 3 / 3 + code / 12
