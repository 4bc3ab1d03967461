"""Processor time instead of the clock's: what is left of a measurement where other processes take the core away."""

from __future__ import annotations

import time
from collections.abc import Callable

from netopt.timing import SelfTimed


class CpuTimed(SelfTimed):
    """A call in this process, timed by the processor time of all threads of the process.

    It misses what a call waits for, and counts each thread: meant for engines on one thread. What others leave in the
    caches disturbs it still.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def times(self, count: int) -> list[float]:
        """See `SelfTimed`."""
        seconds = []
        for _ in range(count):
            before = time.process_time()
            self._call()
            seconds.append(time.process_time() - before)
        return seconds
