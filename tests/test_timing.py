import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt import timing
from netopt.errors import InvalidArgument
from netopt.timing import SelfTimed, Timing, interleaved


@dataclass
class Clock:
    """Stands in for the module `time`: only the calls that are timed move it on."""

    now: float = 1000.0
    log: list[str] = field(default_factory=list)

    def perf_counter(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes each of these times in turn, then the last one for ever."""
        left = list(seconds)

        def run() -> None:
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_the_calls_take_turns(clock: Clock) -> None:
    interleaved({"a": clock.call("a", 1), "b": clock.call("b", 2), "c": clock.call("c", 3)}, rounds=2, warmup=0)
    assert clock.log == ["a", "b", "c", "a", "b", "c"]


def test_each_call_has_its_own_time_in_milliseconds(clock: Clock) -> None:
    # Binary fractions of a second, so that the clock's sums are exact.
    calls = {"fast": clock.call("fast", 0.25), "slow": clock.call("slow", 0.5)}
    timings = interleaved(calls, rounds=4, warmup=1)
    assert timings == {"fast": Timing(250.0, 250.0, 250.0, 4), "slow": Timing(500.0, 500.0, 500.0, 4)}
    assert list(timings) == ["fast", "slow"]


def test_median_and_quartiles(clock: Clock) -> None:
    calls = {"a": clock.call("a", 4, 1, 5, 2, 3)}
    assert interleaved(calls, rounds=5, warmup=0) == {"a": Timing(3e3, 2e3, 4e3, 5)}


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20))
@settings(derandomize=True, deadline=None, max_examples=50)
def test_the_median_is_the_median_whatever_the_times(seconds: list[int]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time", clock)
        result = interleaved({"a": clock.call("a", *seconds)}, rounds=len(seconds), warmup=0)["a"]
    # quantiles interpolates, so it rounds once more than median does
    assert result.median == pytest.approx(1e3 * statistics.median(seconds), rel=1e-12)
    assert 1e3 * min(seconds) <= result.lower_quartile <= result.median <= result.upper_quartile <= 1e3 * max(seconds)
    assert result.samples == len(seconds)


def test_the_first_rounds_are_not_counted(clock: Clock) -> None:
    calls = {"a": clock.call("a", 64, 32, 1)}
    assert interleaved(calls, rounds=3, warmup=2) == {"a": Timing(1e3, 1e3, 1e3, 3)}
    assert len(clock.log) == 5


def test_one_round_is_its_own_quartiles(clock: Clock) -> None:
    assert interleaved({"a": clock.call("a", 2)}, rounds=1) == {"a": Timing(2e3, 2e3, 2e3, 1)}


@pytest.mark.parametrize(
    ("seconds", "rounds", "done"),
    [
        (None, 9, 9),
        (1000.0, 9, 9),
        (0.0, 9, 3),
        (3.5, 9, 4),
        (4.0, 9, 5),  # exactly at the limit is not past it
        (0.0, 2, 2),
    ],
)
def test_it_stops_when_the_time_is_over_but_after_three_rounds(
    clock: Clock, seconds: float | None, rounds: int, done: int
) -> None:
    timings = interleaved({"a": clock.call("a", 1)}, rounds=rounds, warmup=0, seconds=seconds)
    assert timings["a"].samples == done
    assert len(clock.log) == done


def test_the_warmup_does_not_eat_the_time(clock: Clock) -> None:
    timings = interleaved({"a": clock.call("a", 500, 1)}, rounds=5, warmup=1, seconds=100)
    assert timings["a"].samples == 5


def test_no_calls_no_timings() -> None:
    assert interleaved({}) == {}


def test_calls_in_bursts(clock: Clock) -> None:
    """Of each burst the first call is not timed: it finds the caches as another call left them."""
    calls = {"a": clock.call("a", 64, 1, 1, 64, 2, 2), "b": clock.call("b", 64, 3, 3, 64, 3, 3)}
    timings = interleaved(calls, rounds=2, warmup=0, burst=2)
    assert clock.log == ["a"] * 3 + ["b"] * 3 + ["a"] * 3 + ["b"] * 3
    assert timings == {"a": Timing(1500.0, 1000.0, 2000.0, 4), "b": Timing(3e3, 3e3, 3e3, 4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds: expected an integer of at least 1, found 0"),
        ({"rounds": 2.5}, r"rounds: .* found 2\.5"),
        ({"burst": 0}, "burst: expected an integer of at least 1, found 0"),
        ({"burst": True}, "burst: .* found True"),
        ({"warmup": -1}, "warmup: expected an integer of at least 0, found -1"),
        ({"warmup": "2"}, "warmup: .* found '2'"),
        ({"seconds": -1.0}, r"seconds: expected a number of at least 0, or None, found -1\.0"),
        ({"seconds": float("nan")}, "seconds: .* found nan"),
        ({"seconds": "1"}, "seconds: .* found '1'"),
    ],
)
def test_numbers_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        interleaved({"a": list}, **options)


def test_an_error_of_a_call_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        interleaved({"a": lambda: 1 / 0})


def test_a_real_clock_moves_forward() -> None:
    timings = interleaved({"a": lambda: sum(range(100))}, rounds=5)
    assert 0 < timings["a"].lower_quartile <= timings["a"].median <= timings["a"].upper_quartile


def test_a_timing_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Timing(1.0, 1.0, 1.0, 1).median = 2.0  # type: ignore[misc]


def test_what_times_itself_is_believed() -> None:
    asked: list[int] = []

    class Remote(SelfTimed):
        def times(self, count: int) -> list[float]:
            asked.append(count)
            return [0.25] * count

    timing = interleaved({"remote": Remote(), "local": lambda: None}, rounds=2, warmup=1, burst=3)["remote"]
    assert (timing.median, timing.lower_quartile, timing.upper_quartile, timing.samples) == (250.0, 250.0, 250.0, 6)
    assert asked == [1, 1, 3, 1, 3]
