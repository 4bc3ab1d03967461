"""Two source trees of netopt, step by step: what each step takes in one against the other, in turn.

    python bench/compare_trees.py OLD_SRC NEW_SRC [--only NAME ...] [--batch N] [--precision P] [--core C]
        [--starts N] [--rounds N] [--burst N] [--within SHARE] [--all]

For each network two processes, one a tree, lower it under default schedules, and take turns in runs of a few calls,
all on one core. Where memory and code come to lie differs from process to process, by a percent or two of a step's time
even for the same code, so that there are several pairs of them. A row is a step: the median over all rounds of its time
in the new tree over that in the old one of the same round, with quartiles. Prints the rows that are slower by more than
`--within`, or all, and a row for the network. Ends with 1 if a step was slower in three quarters of its rounds, and by
more than `--within` in the median.

Only names that are public in both trees are used. Compiled code is not kept by processes that were started for it, and
schedules that tuning found are not read: NETOPT_CACHE_DIR is an empty folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tree_worker import MODELS
from worker import Worker

from netopt.console import render_table

# Steps that are shorter are compared in the sum over the network only: the clock takes a share of them.
SHORTEST_MS = 0.01


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Times of one step: the old median in ms, and of the ratios of rounds, new to old, the quartiles."""

    label: str
    old_ms: float
    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, label: str, old: Sequence[float], new: Sequence[float]) -> Ratio:
        """Of the seconds of each round."""
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(label=label, old_ms=1e3 * statistics.median(old), lower=lower, median=median, upper=upper)

    def is_slower(self, within: float) -> bool:
        """Whether noise does not explain it."""
        return self.median > 1 + within and self.lower > 1


def main() -> None:
    """Compare all networks and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="NAME")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--starts", type=int, default=3, help="pairs of processes, for each has its own luck")
    parser.add_argument("--rounds", type=int, default=10, help="of each pair")
    parser.add_argument("--burst", type=int, default=5, help="calls of one turn, of which the median counts")
    parser.add_argument("--within", type=float, default=0.02)
    parser.add_argument("--all", action="store_true", help="print all steps")
    options = parser.parse_args()
    if options.rounds < 2 or options.burst < 1 or options.starts < 1:
        parser.error("--rounds must be at least 2, --burst and --starts at least 1")
    os.sched_setaffinity(0, {options.core})  # of the processes that it starts, too
    slower = 0
    for name in options.only:
        rows = _compare(name, options)
        slow = [row for row in rows if row.is_slower(options.within)]
        slower += len(slow)
        shown = rows if options.all else [rows[0], *(row for row in slow if row is not rows[0])]
        cells = [(r.label, f"{r.old_ms:.4f}", f"{r.median:.3f}", f"{r.lower:.3f} to {r.upper:.3f}") for r in shown]
        title = f"{name}: {len(slow)} of {len(rows)} rows slower"
        print(render_table(["step", "old ms", "new / old", "quartiles"], cells, title=title), flush=True)
    sys.exit(bool(slower))


def _compare(name: str, options: argparse.Namespace) -> list[Ratio]:
    """The whole network, then each step that takes long enough."""
    old, new = [], []
    for _ in range(options.starts):
        labels, *times = _rounds(name, options)
        old += times[0]
        new += times[1]
    total = Ratio.of("all steps", *([sum(steps) for steps in rounds] for rounds in (old, new)))
    by_step = (zip(*rounds, strict=True) for rounds in (old, new))
    rows = [Ratio.of(*row) for row in zip(labels, *by_step, strict=True)]
    return [total, *(row for row in rows if row.old_ms >= SHORTEST_MS)]


def _rounds(name: str, options: argparse.Namespace) -> tuple[list[str], list[list[float]], list[list[float]]]:
    """What the steps are, and their seconds in each round, in the old tree and in the new one: of two new processes."""
    with tempfile.TemporaryDirectory() as cache:
        old, new = (_worker(tree, name, options, cache) for tree in (options.old, options.new))
    labels, others = old.about["steps"], new.about["steps"]
    if len(labels) != len(others):
        raise ValueError(f"{name}: the old tree has {len(labels)} steps, the new one {len(others)}")
    for before, after in zip(labels, others, strict=True):
        if before != after:
            print(f"{name}: step {before!r} is {after!r} in the new tree")
    times: tuple[list[list[float]], list[list[float]]] = ([], [])
    for number in range(options.rounds):
        # Each is the first in every other round.
        for tree in (0, 1) if number % 2 else (1, 0):
            times[tree].append(_medians((old, new)[tree], options.burst))
    return others, *times


def _worker(tree: Path, name: str, options: argparse.Namespace, cache: str) -> Worker:
    """A process that runs the sources of `tree`."""
    script = Path(__file__).with_name("tree_worker.py")
    environment = {"PYTHONPATH": str(tree.resolve()), "NETOPT_CACHE_DIR": cache}
    worker = Worker([sys.executable, script, name, str(options.batch), options.precision], environment)
    if str(tree.resolve() / "netopt") not in worker.about["path"]:
        raise ValueError(f"expected the netopt of {tree.resolve()}, found {worker.about['path']}")
    return worker


def _medians(worker: Worker, burst: int) -> list[float]:
    """Of each step, over a turn, whose first call, which finds cold caches, does not count."""
    runs: list[list[float]] = worker.times(burst + 1)[1:]  # type: ignore[assignment]
    return [statistics.median(step) for step in zip(*runs, strict=True)]


if __name__ == "__main__":
    main()
