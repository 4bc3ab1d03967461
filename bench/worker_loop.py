"""The half of `worker.Worker` that runs in the other process, without netopt's packages: standard library only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable


def answer(run: Callable[[], object], about: object) -> None:
    """Write `about`, which says that all is ready; then for each line, a number n, run n times and write seconds."""
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            before = time.perf_counter()
            run()
            times.append(time.perf_counter() - before)
        print(json.dumps(times), flush=True)
