"""A whole network, lowered: where its time goes before layers are replaced, and what it is with them replaced."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from torch import nn

from netopt.console import progress
from netopt.errors import UnsupportedModel
from netopt.example import Example
from netopt.program.lower import lower_as
from netopt.program.options import Lowering
from netopt.program.program import Program
from netopt.search.measure import BURST, ROUNDS, SECONDS, is_float32
from netopt.timing import interleaved
from netopt.transform.group import is_within
from netopt.transform.layer_report import LayerReport, NetworkTimes, Outlook

# Runs in which the time of each step is taken, after two that warm up.
_RUNS = 20


@dataclass(frozen=True)
class WholeNetwork:
    """A network as it is, lowered.

    Attributes:
        program: of it.
        example: that it is called with.
        options: how it was lowered, and how what becomes of it will be.
        shares: of its time, by layer; of each the steps that come from it, with what was fused into them.
    """

    program: Program
    example: Example
    options: Lowering
    shares: Mapping[str, float]

    @classmethod
    def of(cls, model: nn.Module, example: Example, options: Lowering) -> WholeNetwork | None:
        """The network lowered, and its steps timed; None if it cannot be lowered as it is."""
        if not is_float32(model):
            return None
        with progress("lowering the whole network, to see where its time goes", 2) as bar:
            try:
                program = lower_as(model, example, options)
            except UnsupportedModel:
                return None
            bar.advance(description="timing the steps of the whole network")
            return cls(program, example, options, _shares(program, example))

    def outlook(self, rows: Sequence[LayerReport]) -> Outlook:
        """What the replacements of a report may bring, before it is measured."""
        replaced = [row for row in rows if row.replaced]
        share = self._share({row.layer for row in replaced})
        saved = sum(
            self._share({row.layer}) * (1 - row.after_ms / row.before_ms)
            for row in replaced
            if row.before_ms and row.after_ms is not None
        )
        multiply_adds = sum(step.multiply_adds for step in self.program.steps)
        left = multiply_adds - sum(row.before.multiply_adds - row.after.multiply_adds for row in replaced)
        return Outlook(
            candidates=self._share({row.layer for row in rows}),
            replaced=share,
            by_times=1 / (1 - saved),
            by_multiply_adds=multiply_adds / left if left > 0 else 1.0,
        )

    def times(self, after: nn.Module) -> NetworkTimes | None:
        """The network before and after, called in turn; None if what became of it cannot be lowered."""
        if not is_float32(after):
            return None
        with progress("lowering the whole network with its replacements", 2) as bar:
            try:
                program = lower_as(after, self.example, self.options)
            except UnsupportedModel:
                return None
            bar.advance(description="timing the whole network, before and after")
            calls = {"before": partial(self.program, self.example), "after": partial(program, self.example)}
            timings = interleaved(calls, rounds=ROUNDS, burst=BURST, seconds=2 * SECONDS)
        return NetworkTimes(timings["before"].median, timings["after"].median)

    def _share(self, layers: set[str]) -> float:
        """The share of the time that steps of these layers take, and of what is in them."""
        return sum(
            share
            for name, share in self.shares.items()
            if name in layers or any(is_within(name, layer) for layer in layers)
        )


def _shares(program: Program, example: Example) -> dict[str, float]:
    samples: dict[int, list[float]] = defaultdict(list)

    def watch(index: int, run: Callable[[], None]) -> None:
        before = time.perf_counter()
        run()
        samples[index].append(time.perf_counter() - before)

    for _ in range(_RUNS + 2):
        program.call_by_steps(watch, example)
    times = {index: median(taken[2:]) for index, taken in samples.items()}
    total = sum(times.values())
    shares: dict[str, float] = defaultdict(float)
    for index, taken in times.items():
        shares[program.steps[index].layer] += taken / total
    return dict(shares)
