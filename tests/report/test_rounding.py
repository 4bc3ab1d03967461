"""What rounding does, in figures that are worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from netopt.numerics import BFLOAT16, FLOAT32, Affine, CodeFormat, FixedPoint, NumberFormat
from netopt.report.rounding import Rounding, decibels, histogram_of_codes


def _of(format_: NumberFormat, *runs: list[float]) -> Rounding:
    rounding = Rounding(format_)
    for run in runs:
        x = torch.tensor(run, dtype=torch.float64)
        rounding.update(x, format_.decode(format_.encode(x), torch.float64))
    return rounding


def test_nothing_seen() -> None:
    rounding = Rounding(FixedPoint(8, 4))
    assert rounding.range is rounding.saturated is rounding.sqnr_db is rounding.histogram is None


def test_what_lies_beyond_the_codes_by_more_than_rounding_is_saturated() -> None:
    # Codes of -128 to 127 at steps of 1: 127.49 and -128.5 round to the ends, 127.5 and -128.51 would round beyond.
    rounding = _of(FixedPoint(8, 0), [127.49, -128.5, 0.0, 3.0], [127.5, -128.51, 1.0, 2.0])
    assert rounding.saturated == 2 / 8
    assert rounding.range == (-128.51, 127.5)


def test_zeros_of_unsigned_codes_are_not_saturated() -> None:
    assert _of(FixedPoint(8, 4, signed=False), [0.0, 0.0, 0.0, 1.0]).saturated == 0.0


def test_signal_to_noise_over_all_runs() -> None:
    # Powers 1 + 4 and 0.25; noise 0 + 0 and 0.25, for one half is rounded to 1.
    rounding = _of(FixedPoint(8, 0), [1.0, 2.0], [0.5])
    assert rounding.sqnr_db == pytest.approx(10 * math.log10(5.25 / 0.25))


@pytest.mark.parametrize(
    ("format_", "numbers", "sqnr"),
    [
        (FixedPoint(8, 0), [1.0, -2.0], math.inf),
        (FixedPoint(8, 0), [0.0, 0.0], math.inf),
        (FixedPoint(8, -4), [1.0, 2.0], 0.0),
        (FLOAT32, [1.0, 2.5], None),
        (BFLOAT16, [1.0, 2.5], math.inf),
    ],
)
def test_signal_to_noise_at_its_ends(format_: NumberFormat, numbers: list[float], sqnr: float | None) -> None:
    assert _of(format_, numbers).sqnr_db == sqnr


def test_decibels() -> None:
    assert decibels(100.0, 1.0) == 20.0
    assert decibels(1.0, 0.0) == math.inf
    assert decibels(0.0, 1.0) == -math.inf


def test_numbers_that_are_not_finite_are_saturated_and_in_no_sum() -> None:
    rounding = _of(FixedPoint(8, 0), [math.nan, math.inf, -math.inf, 2.0])
    assert rounding.saturated == 3 / 4
    assert rounding.range == (2.0, 2.0)
    assert rounding.sqnr_db == math.inf
    assert _of(FixedPoint(8, 0), [math.nan]).range is None


def test_only_codes_have_saturation_and_histograms() -> None:
    rounding = _of(FLOAT32, [1.0, 2.0])
    assert rounding.saturated is rounding.histogram is None
    assert rounding.range == (1.0, 2.0)


def test_a_histogram_of_every_code() -> None:
    # Codes -4 to 3 with one more on either side, at steps of 1/2.
    histogram = _of(FixedPoint(3, 1), [0.0, 0.1, 0.5, 1.5, 9.0, -9.0]).histogram
    assert histogram is not None
    assert (histogram.low, histogram.high, histogram.ends) == (-2.75, 2.25, (-2.25, 1.75))
    assert histogram.before == (1, 0, 0, 0, 0, 2, 1, 0, 1, 1)
    assert histogram.after == (0, 1, 0, 0, 0, 2, 1, 0, 2, 0)


@pytest.mark.parametrize(
    ("format_", "bins", "codes"),
    [
        (FixedPoint(16, 3), 80, 1024),
        (FixedPoint(8, 3), 80, 4),
        (FixedPoint(8, 3, signed=False), 80, 4),
        (FixedPoint(7, 3, signed=False), 80, 2),
        (FixedPoint(4, 3), 20, 1),
        (FixedPoint(2, 3), 6, 1),
        (Affine(8, 0.75, 3), 80, 4),
    ],
)
def test_bins_are_whole_codes(format_: CodeFormat, bins: int, codes: int) -> None:
    rounding = _of(format_, [0.0])
    histogram = rounding.histogram
    assert histogram is not None
    assert len(histogram.before) == len(histogram.after) == bins
    assert (histogram.high - histogram.low) / bins == codes * format_.steps[0]
    assert sum(histogram.before) == sum(histogram.after) == 1


def test_codes_of_a_constant_by_channel() -> None:
    codes = torch.tensor([[-4, 3], [0, 0]], dtype=torch.int8)
    histogram = histogram_of_codes(FixedPoint(3, (1, 5)), codes)
    assert (histogram.low, histogram.high, histogram.ends) == (-5.5, 4.5, (-4.5, 3.5))
    assert histogram.after == (0, 1, 0, 0, 0, 2, 0, 0, 1, 0)
    assert histogram.before == ()
