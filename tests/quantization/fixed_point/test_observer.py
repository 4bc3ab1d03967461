"""Statistics in one pass against those of all numbers together."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import InvalidArgument
from netopt.numerics import Affine, CodeFormat, FixedPoint
from netopt.quantization.fixed_point.observer import Observer


def seen(*batches: torch.Tensor) -> Observer:
    observer = Observer()
    for batch in batches:
        observer.update(batch)
    return observer


def exact_error(x: torch.Tensor, format_: CodeFormat) -> float:
    return (format_.decode(format_.encode(x), torch.float64) - x.double()).square().sum().item()


def test_statistics_of_batches_are_those_of_all() -> None:
    torch.manual_seed(0)
    batches = [torch.randn(70, 5).mul(10.0**scale).relu_() for scale in (-3, 0, 2, -1)]
    batches[1][0, 0] = -7.5
    observer, x = seen(*batches), torch.cat(batches).double()
    assert observer.count == 1400
    assert observer.zeros == int((x == 0).sum()) > 600
    assert (observer.min, observer.max) == (-7.5, x.max().item())
    assert observer.largest == x.max().item()
    assert observer.square_sum == pytest.approx(x.square().sum().item(), rel=1e-12)
    above, below = observer.bins()
    assert above.counts.sum() == (x > 0).sum()
    assert below.counts.sum() == 1 and below.low.item() == below.high.item() / (1 + 2.0**-20) == 7.5
    assert observer.magnitudes().counts.sum() == (x != 0).sum()


def test_each_number_is_in_its_bin() -> None:
    torch.manual_seed(1)
    x = torch.randn(3000) * torch.randn(3000).mul(8).exp2()
    above, _ = seen(x).bins()
    assert bool((above.low < above.high).all()) and bool((above.low[1:] >= above.high[:-1]).all())
    assert bool(((above.high - above.low) / above.low <= 2.0**-7).all())
    for low, high, count in zip(above.low.tolist(), above.high.tolist(), above.counts.tolist(), strict=True):
        assert int(((x >= low) & (x <= high)).sum()) == count


def test_moving_averages() -> None:
    observer = Observer(decay=0.5)
    for low, high in ((-1.0, 4.0), (-3.0, 0.0), (2.0, 8.0)):
        observer.update(torch.tensor([low, high, (low + high) / 2]))
    assert (observer.moving_min, observer.moving_max) == (0.0, 5.0)


@given(
    scale=st.integers(-40, 40),
    bits=st.sampled_from([2, 4, 7, 8, 16]),
    octaves=st.integers(-3, 6),
    signed=st.booleans(),
    real=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_error_of_a_format_is_known_from_the_histogram(
    scale: int, bits: int, octaves: int, signed: bool, real: bool, seed: int
) -> None:
    """Of many numbers that are not all alike: within some percent of the exact one, saturated or not.

    Where a few numbers alone are beyond codes of 16 bits, the error is mostly theirs, and they do not lie evenly in
    their bins: of 1 to 99 such numbers up to 10 % are allowed.
    """
    signed = signed or bits == 16
    torch.manual_seed(seed)
    x = torch.randn(100_000)
    x = (x if signed else x.abs()) * 2.0**scale
    exponent = bits - signed - octaves
    format_ = (
        Affine(bits, 0.75 * 2.0 ** (scale - exponent), 0, signed)
        if real
        else FixedPoint(bits, exponent - scale, signed)
    )
    observer = seen(x)
    error = exact_error(x, format_)
    found = observer.errors(torch.tensor(format_.steps, dtype=torch.float64), format_.codes).item()
    low, high = format_.bounds
    step = format_.steps[0]
    share = ((x < low - step / 2) | (x >= high + step / 2)).double().mean().item()
    within, decibels = (0.1, 0.5) if 0 < share < 1e-3 else (0.03, 0.15)
    assert found == pytest.approx(error, rel=within)
    ratio = 10 * math.log10(x.double().square().sum().item() / error)
    assert observer.sqnr(format_) == pytest.approx(ratio, abs=decibels)
    assert observer.saturated(format_) == pytest.approx(share, abs=0.002)


def test_where_numbers_are_cut_off_they_lie_where_they_are() -> None:
    """As relu6 leaves them: at 6 exactly, which is no multiple of most steps."""
    torch.manual_seed(3)
    x = (torch.randn(50_000) * 6).clamp(0, 6)
    for format_ in (FixedPoint(8, 5, False), FixedPoint(4, 1, False), FixedPoint(3, 0, False)):
        assert seen(x).sqnr(format_) == pytest.approx(
            10 * math.log10(x.double().square().sum().item() / exact_error(x, format_)), abs=0.1
        )


def test_a_zero_point_and_no_codes_below_0() -> None:
    torch.manual_seed(4)
    x = torch.randn(50_000)
    for format_ in (Affine(8, 2.0**-6, 30, False), Affine(8, 2.0**-6, -100), FixedPoint(8, 6, False)):
        assert seen(x).sqnr(format_) == pytest.approx(
            10 * math.log10(x.double().square().sum().item() / exact_error(x, format_)), abs=0.05
        )
        low, high = format_.bounds
        share = ((x < low) | (x > high)).double().mean().item()
        assert seen(x).saturated(format_) == pytest.approx(share, abs=0.005)


def test_merged_is_one_that_saw_all() -> None:
    torch.manual_seed(5)
    x, y = torch.randn(500), torch.randn(300) * 5 + 2
    merged, both = Observer.merged([seen(x), seen(y), Observer()]), seen(x, y)
    assert (merged.count, merged.min, merged.max) == (both.count, both.min, both.max)
    assert merged.square_sum == pytest.approx(both.square_sum)
    assert torch.equal(merged.magnitudes().counts, both.magnitudes().counts)
    assert merged.moving_max == y.max().item()
    assert merged.moving_min == min(x.min().item(), y.min().item())


def test_nothing_and_zeros_alone() -> None:
    observer = seen(torch.empty(0, 3))
    assert (observer.count, observer.largest, observer.zeros) == (0, 0.0, 0)
    assert observer.saturated(FixedPoint(8, 3)) == 0.0
    observer.update(torch.tensor([0.0, -0.0, 1e-45]))
    assert (observer.count, observer.zeros) == (3, 3)
    assert observer.sqnr(FixedPoint(8, 3)) == math.inf


def test_other_types_and_layouts_of_tensors() -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(6))
    for other in (x.double(), x.t(), x.requires_grad_()):
        assert torch.equal(seen(other).magnitudes().counts, seen(x).magnitudes().counts)


def test_what_cannot_be() -> None:
    for bad in (math.inf, -math.inf, math.nan):
        with pytest.raises(InvalidArgument, match="found 1 infinite or NaN"):
            Observer().update(torch.tensor([1.0, bad]))
    with pytest.raises(InvalidArgument, match="decay of an observer"):
        Observer(decay=1.0)
