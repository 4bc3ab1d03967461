"""Where the time of a program goes: each of its steps timed while the whole program runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from netopt.console import count, render_table
from netopt.errors import InvalidArgument, InvalidType
from netopt.program.program import Program
from netopt.program.step import Step, shape_text
from netopt.timing import Timing


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """A step and its time.

    Attributes:
        index: the step's place in `Program.steps`.
        step: what it is: op, layer, shapes, schedule.
        time: its latency.
        share: of the sum of the medians of all steps.
    """

    index: int
    step: Step
    time: Timing
    share: float

    @property
    def op(self) -> str:
        """The op with what was fused into it."""
        return self.step.op.label

    @property
    def layer(self) -> str:
        """The layer of the model."""
        return self.step.layer

    @property
    def ms(self) -> float:
        """The median of its latency in milliseconds."""
        return self.time.median

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one run."""
        return self.step.multiply_adds

    @property
    def gmacs(self) -> float:
        """Billions of multiply-adds a second; of Winograd's algorithm those that it makes, fewer than a convolution."""
        return self.multiply_adds / self.ms / 1e6

    @property
    def bytes(self) -> int:
        """Bytes of inputs, constants and output, each counted once."""
        return self.step.constant_bytes + self.step.activation_bytes

    @property
    def gbytes_per_second(self) -> float:
        """Those bytes, in 10^9 a second."""
        return self.bytes / self.ms / 1e6


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The steps of a program that run code, in their order or slowest first. `print(profile)` shows a table.

    Attributes:
        rows: the steps.
        call: latency of a whole call in the same rounds, without the clock between the steps: with the copies of inputs
            and outputs.
        steps_ms: sum of the medians of all steps, those that are no longer in `rows` included.
    """

    rows: tuple[StepTime, ...]
    call: Timing
    steps_ms: float

    def worst(self, number: int | None = None) -> Profile:
        """The slowest steps, slowest first: all of them, or only `number`.

        Raises:
            InvalidArgument: `number` is below 1.
        """
        if number is not None and (type(number) is not int or number < 1):
            raise InvalidArgument("number", expected="an integer of at least 1", found=number)
        return replace(self, rows=tuple(sorted(self.rows, key=lambda row: -row.ms)[:number]))

    def __str__(self) -> str:
        names = ("op", "layer", "input", "output", "schedule")
        figures = ("ms", "share", "multiply-adds", "GMAC/s", "bytes", "GB/s")
        cells = [
            (
                row.op,
                row.layer,
                shape_text(row.step.inputs[0]) if row.step.inputs else "none",
                shape_text(row.step.output),
                row.step.how,
                f"{row.ms:.4f}",
                f"{row.share:.1%}",
                count(row.multiply_adds),
                f"{row.gmacs:.1f}" if row.multiply_adds else "-",
                count(row.bytes),
                f"{row.gbytes_per_second:.1f}",
            )
            for row in self.rows
        ]
        table = render_table((*names, *figures), cells, text_columns=len(names))
        call = f"a call, with copies of inputs and outputs, {self.call.median:.4f} ms"
        return f"{table}\nall steps {self.steps_ms:.4f} ms; {call}; medians of {self.call.samples}"


def profile(program: Program, *inputs: Any, rounds: int = 30) -> Profile:
    """Time each step of a program in whole runs of it, so that each finds the caches as in real use.

    Runs and plain calls take turns. What the clock itself takes, about 0.1 us, is in the time of each step.

    Args:
        program: a lowered network.
        inputs: as the program takes them; named ones as one example, as `lower` took it.
        rounds: runs to measure, at least 1, after two that are not.

    Raises:
        InvalidType: `program` is no Program, or an input is not float32.
        InvalidArgument: `rounds` is below 1, or the inputs do not fit.
    """
    if not isinstance(program, Program):
        raise InvalidType("program", expected="a Program, as netopt.lower returns it", found=type(program).__name__)
    if type(rounds) is not int or rounds < 1:
        raise InvalidArgument("rounds", expected="an integer of at least 1", found=rounds)
    steps = program.steps
    samples: dict[int, list[float]] = {index: [] for index, step in enumerate(steps) if step.runs}
    calls: list[float] = []

    def watch(index: int, run: Callable[[], None]) -> None:
        samples[index].append(_ms(run))

    for done in range(rounds + 2):
        if done == 2:
            for times in (*samples.values(), calls):
                times.clear()
        program.call_by_steps(watch, *inputs)
        calls.append(_ms(lambda: program(*inputs)))
    timings = {index: Timing.of(times) for index, times in samples.items()}
    total = sum(timing.median for timing in timings.values())
    rows = tuple(
        StepTime(index=index, step=steps[index], time=timing, share=timing.median / total)
        for index, timing in timings.items()
    )
    return Profile(rows=rows, call=Timing.of(calls), steps_ms=total)


def _ms(run: Callable[[], object]) -> float:
    before = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - before)
