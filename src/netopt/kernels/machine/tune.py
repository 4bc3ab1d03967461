"""Which schedule a kernel runs: the winner of a measurement on this machine where there was one, else the default.

Winners are kept in one JSON file, `schedules.json` in the folder NETOPT_CACHE_DIR, or else in netopt's folder of the
user's cache. A key holds the op, the shapes, the number of threads, the CPU's features, Halide's version, and whether
the weights were in the cache or came from memory.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import halide as hl
import numpy as np

from netopt.console import progress
from netopt.errors import NetoptError
from netopt.files import write_atomically
from netopt.graph.graph import Graph
from netopt.kernels.machine.buffers import aligned_array, aligned_bytes, array_at, strides_of
from netopt.kernels.machine.compile import bind_kernel
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.denormals import denormals_flushed
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Kernel, Problem, Schedule
from netopt.numerics import NumberFormat, Shape, align_up
from netopt.ops import Op
from netopt.timing import interleaved

_Call = Callable[[], None]

# A network with more weights than this streams them from memory on each run: about half of a last-level cache.
STREAMED_BYTES = 16 * 2**20
# Copies of a kernel's weights that a measurement goes through in turn, so that none stays in the cache.
_STREAM_POOL_BYTES = 128 * 2**20
_FINALISTS_WITHIN = 1.25
_SECONDS = 1.0
# The default is given up only for something that noise does not explain.
_MARGIN = 0.98


@dataclass(frozen=True)
class Workload:
    """A problem as part of a network.

    Attributes:
        kernel: what solves it.
        problem: what is computed.
        constants: which of its inputs are known when it is compiled.
        streamed: its weights come from memory rather than the cache.
    """

    kernel: Kernel[Any, Any]
    problem: Problem[Op]
    constants: tuple[int, ...]
    streamed: bool

    def key(self, cpu: Cpu) -> str:
        """The key of the winner in the file."""
        where = "streamed" if self.streamed else "cached"
        return " | ".join(
            (self.kernel.code_problem(self.problem).key(), cpu.target, f"halide {version('halide')}", where)
        )


def streams(graph: Graph) -> bool:
    """Whether the network has so many weights that each run reads them from memory."""
    return sum(graph.types[name].bytes for name in graph.constants) > STREAMED_BYTES


def cache_file() -> Path:
    """Where winners are kept."""
    folder = os.environ.get("NETOPT_CACHE_DIR")
    if folder:
        return Path(folder) / "schedules.json"
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "netopt" / "schedules.json"
    except RuntimeError:
        # A user without a home, as in containers: winners are kept until the machine's temporary files are removed.
        return _temporary_folder() / "schedules.json"


def _temporary_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"netopt-{os.getuid()}"


def choose_schedules(workloads: Sequence[Workload], cpu: Cpu) -> list[Schedule]:
    """The remembered winner for each workload, or the default."""
    winners = _read_winners()
    result = []
    for workload in workloads:
        table = workload.kernel.schedules(workload.problem, cpu)
        label = winners.get(workload.key(cpu), {}).get("schedule")
        # A table that no longer has the winner (another netopt wrote it) falls back on the default.
        result.append(next((schedule for schedule in table if str(schedule) == label), table[0]))
    return result


def tune(workloads: Iterable[Workload], cpu: Cpu) -> None:
    """Measure the schedules of each workload that has no winner yet, and remember the fastest.

    Each winner is written when it is found, so that an interrupted run resumes where it stopped.
    """
    winners = _read_winners()
    pending = {w.key(cpu): w for w in workloads if _is_open(w, cpu, winners)}
    with progress("tuning", len(pending)) as bar:
        for key, workload in pending.items():
            shapes = " x ".join(str(list(t.shape)) for t in workload.problem.inputs[:2])
            bar.update(description=f"tuning {workload.problem.op.label} {shapes}")
            with denormals_flushed():
                winner = _measure(workload, cpu)
            _remember(key, winner)
            bar.advance()


def fastest(workloads: Sequence[Workload], cpu: Cpu, measure: bool) -> int | None:
    """Which of several ways to compute the same thing is the fastest, each under its chosen schedule.

    The remembered answer where there is one; else that of a measurement, which is remembered, if `measure`; else None.
    The first is given up only for one that is clearly faster.
    """
    key = " || ".join(workload.key(cpu) for workload in workloads)
    answer = _read_winners().get(key, {}).get("fastest")
    if isinstance(answer, int) and 0 <= answer < len(workloads):
        return answer
    if not measure:
        return None
    schedules = choose_schedules(workloads, cpu)
    calls = {
        str(index): _calls(workload, [schedule], cpu)[0]
        for index, (workload, schedule) in enumerate(zip(workloads, schedules, strict=True))
    }
    times = interleaved(calls, rounds=50, warmup=1, seconds=_SECONDS)
    winner = min(times, key=lambda name: times[name].median)
    if times[winner].median > _MARGIN * times["0"].median:
        winner = "0"
    _remember(key, {"fastest": int(winner), "ms": [times[name].median for name in calls]})
    return int(winner)


def _is_open(workload: Workload, cpu: Cpu, winners: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether there is a choice, and no winner that the table still has."""
    table = workload.kernel.schedules(workload.problem, cpu)
    winner = winners.get(workload.key(cpu), {}).get("schedule")
    return len(table) > 1 and winner not in [str(schedule) for schedule in table]


def _measure(workload: Workload, cpu: Cpu) -> dict[str, object]:
    """Time all schedules a few times, then the good ones often."""
    table = workload.kernel.schedules(workload.problem, cpu)
    calls = dict(zip(map(str, table), _calls(workload, table, cpu), strict=True))
    first = interleaved(calls, rounds=5, warmup=1, seconds=_SECONDS)
    limit = _FINALISTS_WITHIN * min(timing.median for timing in first.values())
    default = str(table[0])
    finalists = {name: call for name, call in calls.items() if first[name].median <= limit or name == default}
    final = interleaved(finalists, rounds=50, warmup=0, seconds=_SECONDS)
    winner = min(final, key=lambda name: final[name].median)
    if final[winner].median > _MARGIN * final[default].median:
        winner = default
    return {"schedule": winner, "ms": final[winner].median, "default_ms": final[default].median}


def _calls(workload: Workload, table: Sequence[Schedule], cpu: Cpu) -> list[_Call]:
    """A call of each schedule.

    All share one pool of constants, of samples that any layout may read, and inputs and output, so that images are in
    the cache as those are that a layer has just written.
    """
    kernel = workload.kernel
    all_shapes = [kernel.argument_shapes(workload.problem, schedule, cpu) for schedule in table]
    formats = [type_.format for type_ in (*workload.problem.inputs, workload.problem.output)]
    samples = [_largest_sample([shapes[i] for shapes in all_shapes], formats[i]) for i in workload.constants]
    *offsets, size = _offsets([sample.nbytes for sample in samples])
    copies = max(1, _STREAM_POOL_BYTES // max(1, size)) if workload.streamed else 1
    pool = aligned_bytes(size * copies)
    for offset, sample in zip(offsets, samples, strict=True):
        pool.reshape(copies, size)[:, offset : offset + sample.nbytes] = sample.view(np.uint8)
    scratch_bytes = workload.problem.op.scratch_bytes(workload.problem.inputs)
    scratch = aligned_array((scratch_bytes // 4,)) if scratch_bytes else None
    clock, calls = itertools.count(), []
    types = (*workload.problem.inputs, workload.problem.output)
    shared: dict[tuple[int, tuple[int, ...]], Array] = {}
    for schedule, shapes in zip(table, all_shapes, strict=True):
        arrays = []
        for index, (shape, type_) in enumerate(zip(shapes, types, strict=True)):
            if (index, shape) not in shared:
                shared[index, shape] = aligned_array(shape, type_.format, strides_of(shape, type_))
            arrays.append(shared[index, shape])
        turns = []
        for copy in range(copies):
            for index, offset in zip(workload.constants, offsets, strict=True):
                arrays[index] = array_at(pool, copy * size + offset, shapes[index], formats[index])
            bound = bind_kernel(kernel, workload.problem, schedule, cpu, arrays, scratch)
            turns.append([(function, tuple(hl.Buffer(array) for array in each)) for function, each in bound])
        calls.append(_in_turn(turns, clock))
    return calls


def _largest_sample(shapes: Sequence[Shape], format_: NumberFormat) -> Array:
    """What fills the largest array of these shapes, flat."""
    return format_.sample((max(math.prod(shape) for shape in shapes),))


def _offsets(sizes: Sequence[int]) -> list[int]:
    """Aligned offsets of arrays of these bytes one after the other, and the end of the last."""
    offsets = [0]
    for size in sizes:
        offsets.append(offsets[-1] + align_up(size))
    return offsets


def _in_turn(turns: Sequence[Sequence[tuple[hl.Callable, tuple[hl.Buffer, ...]]]], clock: Iterator[int]) -> _Call:
    """A call that runs one of the turns each time: that of the clock, which all schedules share.

    So none finds the weights that another has just brought into the cache.
    """

    def call() -> None:
        for function, arguments in turns[next(clock) % len(turns)]:
            function(*arguments)

    return call


def _read_winners() -> dict[str, dict[str, object]]:
    try:
        data = json.loads(cache_file().read_text())
        if isinstance(data, dict) and all(isinstance(row, dict) for row in data.values()):
            return data
        raise ValueError("not a table of schedules")
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        warnings.warn(
            f"{cache_file()}: {error}; tuned schedules are ignored, and the next tuning writes the file anew",
            stacklevel=2,
        )
        return {}


def _remember(key: str, winner: dict[str, object]) -> None:
    # Read again: another process may have added its own since.
    winners = _read_winners() | {key: winner}
    folder = cache_file().parent
    try:
        if folder == _temporary_folder():
            _make_own(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(cache_file(), [json.dumps(winners, indent=1, sort_keys=True).encode()])
    except OSError as error:
        raise NetoptError(
            f"tuned schedules cannot be written: {error}", fix="set NETOPT_CACHE_DIR to a folder that can be written"
        ) from error


def _make_own(folder: Path) -> None:
    """Where every user may write, another one may have made the folder, with links in it for us to write through."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.lstat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is another user's")
