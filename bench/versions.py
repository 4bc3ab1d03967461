"""Versions of a layer or a network that take turns in one run: each against what it replaces, and against a bound."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import machine
import torch
from core_peak import Loop
from peers import Call
from table import Row, row
from torch import nn
from worker import Worker

from netopt.console import render_table
from netopt.program.program import Program
from netopt.timing import SelfTimed, interleaved

FLOAT32, PYTORCH = "netopt float32", "PyTorch"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version that must work.

    Attributes:
        call: one run.
        baseline: the version that it is compared with.
        bound: the loop that bounds it; None: it is not compared with one.
    """

    call: Call
    baseline: str = FLOAT32
    bound: str | None = None


class Steps(SelfTimed):
    """Steps of a program, timed while the whole of it runs: as within a network, without copies of input and output."""

    def __init__(self, program: Program, x: torch.Tensor, layers: Collection[str] | None = None) -> None:
        """Those of `layers`, or all."""
        self._program, self._x = program, x
        self._indices = {i for i, s in enumerate(program.steps) if s.runs and (layers is None or s.layer in layers)}

    def times(self, count: int) -> list[float]:
        """See `SelfTimed`."""
        totals = []
        for _ in range(count):
            self._seconds = 0.0
            self._program.call_by_steps(self._watch, self._x)
            totals.append(self._seconds)
        return totals

    def _watch(self, index: int, run: Callable[[], None]) -> None:
        before = time.perf_counter()
        run()
        if index in self._indices:
            self._seconds += time.perf_counter() - before


def checked(program: Program, model: nn.Module, x: torch.Tensor, tolerance: float = 1e-5) -> Program:
    """The program.

    Raises:
        ValueError: its output differs from the model's by more than `tolerance`, relative to the largest output.
    """
    check_close(program(x), model(x), tolerance)
    return program


def check_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """See `checked`."""
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= tolerance:
        raise ValueError(f"outputs: relative error expected to be at most {tolerance}, found {error:.2g}")


def measure(
    name: str,
    versions: Mapping[str, Version],
    peers: Mapping[str, Callable[[], Call]],
    bounds: Mapping[str, Loop],
    *,
    rounds: int,
    multiply_adds: int | None = None,
) -> Row:
    """Time versions, peers and bounds in turn.

    Args:
        name: of the row.
        versions: by name, `FLOAT32` among them.
        peers: by name, `PYTORCH` among them, what makes a call; those that fail are left out, with the reason.
        bounds: loops, and their multiply-adds.
        rounds: of three calls each.
        multiply_adds: of one run of each version and peer; None: they differ.
    """
    calls, absent = {name: version.call for name, version in versions.items()}, {}
    for peer, make in peers.items():
        try:
            calls[peer] = make()
        except Exception as error:  # noqa: BLE001  # peers fail in their own ways; the table says which did and why
            absent[peer] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    about = {peer: call.about for peer, call in calls.items() if isinstance(call, Worker)}
    timings = interleaved(calls | {bound: loop for bound, (loop, _) in bounds.items()}, rounds=rounds, burst=3)
    limits = {bound: work / timings.pop(bound).median / 1e6 for bound, (_, work) in bounds.items()}
    result = row(name, timings, FLOAT32, absent) | {"bounds_gmacs": limits, "about": about}
    for label, figures in result["engines"].items():
        version = versions.get(label)
        baseline = version.baseline if version else FLOAT32
        figures["times_faster_than_float32"] = timings[baseline].median / timings[label].median
        if PYTORCH in timings:
            figures["times_faster_than_pytorch"] = timings[PYTORCH].median / timings[label].median
        if multiply_adds is not None:
            figures["gmacs"] = multiply_adds / timings[label].median / 1e6
            if version and version.bound in limits:
                figures["share_of_bound"] = figures["gmacs"] / limits[version.bound]
    return result


def show(rows: list[Row]) -> None:
    """Print a table, the bounds, what was left out, and the machine."""
    columns = ("ms", "GMAC/s", "times faster than netopt float32", "than PyTorch", "of the bound")
    cells = [
        (
            r["name"],
            label,
            f"{figures['median_ms']:.4f}",
            _cell(figures, "gmacs", ".0f"),
            _cell(figures, "times_faster_than_float32", ".2f"),
            _cell(figures, "times_faster_than_pytorch", ".2f"),
            _cell(figures, "share_of_bound", ".0%"),
        )
        for r in rows
        for label, figures in r["engines"].items()
    ]
    print(render_table(("what", "version", *columns), cells, text_columns=2))
    for r in rows:
        for bound, rate in r["bounds_gmacs"].items():
            print(f"{r['name']}: {bound} {rate:.0f} GMAC/s")
        for peer, facts in r["about"].items():
            print(f"{r['name']}: {peer}: {json.dumps(facts)}")
        for peer, reason in r["absent"].items():
            print(f"{r['name']}: skipped {peer}: {reason}")
    print(json.dumps(machine.describe()))


def _cell(figures: dict[str, float], key: str, format_: str) -> str:
    return format(figures[key], format_) if key in figures else "-"
