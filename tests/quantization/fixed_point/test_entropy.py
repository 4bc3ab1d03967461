"""The divergence of rounded distributions, against the steps of the method number by number."""

from __future__ import annotations

import math

import pytest
import torch

from netopt.quantization.fixed_point.entropy import divergences
from netopt.quantization.fixed_point.observer import Observer


def divergence(histogram: list[float], bins_a_step: int, last: int) -> float:
    """Migacz's method as his slides state it, for codes in the middle of their bins."""
    limit = min(len(histogram), (2 * last + 1) * bins_a_step // 2)
    reference = histogram[:limit]
    reference[-1] += sum(histogram[limit:])
    rounded = [0.0] * limit
    for code in range(last + 1):
        members = [i for i in range(limit) if abs(i + 0.5 - code * bins_a_step) < bins_a_step / 2 and histogram[i] > 0]
        for i in members:
            rounded[i] = sum(histogram[m] for m in members) / len(members)
    p, q = sum(reference), sum(rounded)
    return sum(x / p * math.log(x / p / max(y / q, 1e-12)) for x, y in zip(reference, rounded, strict=True) if x > 0)


def test_against_the_definition() -> None:
    torch.manual_seed(0)
    last = 7
    # 128 bins of width 1; in the widest step there are 16, so nothing is beyond code 7 with it.
    x = (torch.randn(20_000).abs() * 40).clamp(max=119.9).floor() + 0.5
    observer = Observer()
    observer.update(x)
    histogram = torch.bincount(x.long(), minlength=128).double().tolist()
    steps = torch.tensor([16.0, 8.0, 4.0, 2.0], dtype=torch.float64)
    found = divergences(observer.magnitudes(), 16.0, steps, last)
    expected = [divergence(list(histogram), int(step), last) for step in steps.tolist()]
    assert found.tolist() == pytest.approx(expected, rel=1e-3)


def test_an_outlier_is_cut_off_where_the_rest_is_not() -> None:
    torch.manual_seed(1)
    observer = Observer()
    observer.update(torch.cat([torch.randn(200_000).mul(0.2), torch.tensor([7.9])]))
    steps = torch.tensor([2.0**-4, 2.0**-5, 2.0**-6, 2.0**-7, 2.0**-8], dtype=torch.float64)
    found = divergences(observer.magnitudes(), 2.0**-4, steps, 127)
    # Codes to 127 with steps of 1/128 reach to 1, five standard deviations.
    assert int(found.argmin()) == 3
    assert found[0] > 5 * found[3] and found[4] > 5 * found[3]


def test_where_all_is_cut_off_nothing_is_told() -> None:
    observer = Observer()
    observer.update(torch.full((10,), 100.0))
    found = divergences(observer.magnitudes(), 16.0, torch.tensor([16.0, 1.0], dtype=torch.float64), 7)
    assert found[0] == pytest.approx(0.0, abs=1e-9)
    assert found[1] == math.inf
