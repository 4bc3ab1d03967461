"""Latency, measured so that the answers can be compared on a machine that others use too.

The calls take turns, so that a slow moment of the machine falls on all of them, and medians are compared.
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from netopt.errors import InvalidArgument


@dataclass(frozen=True)
class Timing:
    """Latency of one call in milliseconds: median and quartiles over `samples`."""

    median: float
    lower_quartile: float
    upper_quartile: float
    samples: int

    @classmethod
    def of(cls, times: Sequence[float]) -> Timing:
        """The summary of these latencies in milliseconds, at least one."""
        if len(times) == 1:
            return cls(times[0], times[0], times[0], 1)
        lower, median, upper = statistics.quantiles(times, n=4, method="inclusive")
        return cls(median, lower, upper, len(times))


class SelfTimed(ABC):
    """Something that must be timed where it runs, such as in another process."""

    @abstractmethod
    def times(self, count: int) -> list[float]:
        """Run it `count` times; the seconds that each run took."""


def interleaved(
    calls: Mapping[str, Callable[[], object] | SelfTimed],
    *,
    rounds: int = 30,
    warmup: int = 2,
    burst: int = 1,
    seconds: float | None = None,
) -> dict[str, Timing]:
    """Time each call in turn, round after round, and return a `Timing` for each.

    Args:
        calls: what to time, by name: functions, or what times itself.
        rounds: rounds to measure, at least 1.
        warmup: untimed rounds before them.
        burst: timed calls in one turn. More than one are preceded by an untimed one, so that each call finds the
            caches as it left them itself, not as the call before it in the round did.
        seconds: stop early, after at least three rounds, once this much time has passed.

    Raises:
        InvalidArgument: a number is out of range, or none.
    """
    for name, number, least in (("rounds", rounds, 1), ("warmup", warmup, 0), ("burst", burst, 1)):
        if type(number) is not int or number < least:
            raise InvalidArgument(name, expected=f"an integer of at least {least}", found=repr(number))
    if seconds is not None and (type(seconds) not in (int, float) or not seconds >= 0):
        raise InvalidArgument("seconds", expected="a number of at least 0, or None", found=repr(seconds))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warmup):
        for call in calls.values():
            _seconds(call, 1)
    started = time.perf_counter()
    for done in range(rounds):
        if seconds is not None and done >= 3 and time.perf_counter() - started > seconds:
            break
        for name, call in calls.items():
            if burst > 1:
                _seconds(call, 1)
            samples[name] += [1e3 * seconds for seconds in _seconds(call, burst)]
    return {name: Timing.of(times) for name, times in samples.items()}


def _seconds(call: Callable[[], object] | SelfTimed, count: int) -> list[float]:
    if isinstance(call, SelfTimed):
        return call.times(count)
    seconds = []
    for _ in range(count):
        before = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - before)
    return seconds
