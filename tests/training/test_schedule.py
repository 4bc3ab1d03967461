from __future__ import annotations

import pytest

from netopt.training.schedule import LearningRate


def test_a_line_up_then_half_a_cosine_down() -> None:
    rates = [LearningRate(0.4, 10, 0.2)(step) for step in range(10)]
    assert rates[:3] == pytest.approx([0.4 / 3, 0.8 / 3, 0.4])
    assert rates[6] == pytest.approx(0.2)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.02


@pytest.mark.parametrize(("warmup", "first"), [(0.0, 1.0), (1.0, 0.2)])
def test_without_a_rise_or_without_a_fall(warmup: float, first: float) -> None:
    rates = [LearningRate(1.0, 4, warmup)(step) for step in range(4)]
    assert rates[0] == pytest.approx(first)
    assert max(rates) <= 1.0
