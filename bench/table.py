"""Rows of figures: measured, written as JSON, printed as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import machine
import peers
import torch
from torch import nn

from netopt.console import render_table
from netopt.files import write_atomically
from netopt.timing import Timing, interleaved

Row = dict[str, object]


def against_peers(
    name: str, model: nn.Module, x: torch.Tensor, rounds: int, without: Sequence[str] = (), seconds: float | None = None
) -> Row:
    """All engines but those of `without` on one network and input, in turn; ratios to eager PyTorch."""
    calls, absent = peers.prepare(model, x, without)
    return row(name, interleaved(calls, rounds=rounds, burst=3, seconds=seconds), "eager", absent)


def row(name: str, timings: dict[str, Timing], reference: str, absent: dict[str, str], *, threads: int = 1) -> Row:
    """Medians, quartiles and ratios to `reference`."""
    figures = {
        engine: {
            "median_ms": timing.median,
            "quartiles_ms": [timing.lower_quartile, timing.upper_quartile],
            "samples": timing.samples,
            "ratio": timing.median / timings[reference].median,
        }
        for engine, timing in timings.items()
    }
    return {"name": name, "threads": threads, "reference": reference, "engines": figures, "absent": absent}


def publish(rows: list[Row], path: Path) -> None:
    """Put the rows into the file and print the table."""
    merge(rows, path)
    show(rows)


def merge(rows: list[Row], path: Path) -> None:
    """Put the rows, each with its machine, into the file: in place of those of the same name, or after the others."""
    old = json.loads(path.read_bytes())["rows"] if path.exists() else []
    measured = {str(r["name"]): {**r, "machine": machine.describe()} for r in rows}
    # Rows from before each had its machine are dropped: nothing would tell what they were measured on.
    by_name = {r["name"]: r for r in old if "machine" in r} | measured
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, [json.dumps({"rows": list(by_name.values())}, indent=1).encode()])


def show(rows: list[Row]) -> None:
    """Print the table, with the machine and what was skipped."""
    engines = list(dict.fromkeys(engine for r in rows for engine in r["engines"]))
    cells = [[r["name"], *(_cell(r["engines"].get(engine)) for engine in engines)] for r in rows]
    print(render_table(["network", *engines], cells))
    for note in sorted({f"{engine}: {reason}" for r in rows for engine, reason in r["absent"].items()}):
        print(f"skipped {note}")
    print(json.dumps(machine.describe()))


def _cell(figure: dict[str, float] | None) -> str:
    return f"{figure['median_ms']:.3f} ms ({figure['ratio']:.2f})" if figure else "-"
