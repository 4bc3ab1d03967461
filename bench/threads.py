"""What a second core gains: networks with threads=1 and threads=2, in turn in one process.

    python bench/threads.py [--threads N] [--rounds N] [--batch N] [--only NAME ...] [--tune] [--inexact] [--steps]

Needs as many free cores as threads: do not pin it to one. Prints medians, their ratio (above 1 is faster) and how many
cores the process got, which is about 1 where other processes hold the others and the ratio means nothing; with --steps
also the steps that gain the least. Puts its rows into bench/results/threads.json.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from networks import NETWORKS, as_trained
from table import Row, merge, row

import netopt
from netopt.console import render_table
from netopt.program.program import Program
from netopt.program.step import shape_text
from netopt.report import profile
from netopt.timing import interleaved


def main() -> None:
    """Measure, print the tables and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=["resnet18", "vgg19"])
    parser.add_argument("--tune", action="store_true", help="measure schedules first")
    parser.add_argument("--inexact", action="store_true", help="with Winograd's algorithm")
    parser.add_argument("--steps", action="store_true", help="show the steps that gain the least")
    options = parser.parse_args()
    # Halide's pool, which starts at the first parallel loop, takes its size from here.
    os.environ["HL_NUM_THREADS"] = str(options.threads)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    one, many = "1 thread", f"{options.threads} threads"
    rows: list[Row] = []
    for name in options.only:
        make, image, _ = NETWORKS[name]
        model, x = as_trained(make()), torch.randn(options.batch, *image)
        programs = {
            key: netopt.lower(model, x, threads=threads, tune=options.tune, exact=not options.inexact)
            for key, threads in ((one, 1), (many, options.threads))
        }
        calls = {key: partial(program, x) for key, program in programs.items()}
        kind = "inexact" if options.inexact else "exact"
        label = f"{name}, batch {options.batch}, {kind}, {'tuned' if options.tune else 'default'}, {many}"
        rows.append(row(label, interleaved(calls, rounds=options.rounds, burst=3), one, {}, threads=options.threads))
        if options.steps:
            print(f"{label}: steps that gain the least")
            print(_steps(programs[one], programs[many], x, options.rounds))
        rows[-1]["cores_used"] = _cores_used(calls[many], options.rounds)
    merge(rows, Path(__file__).parent / "results" / "threads.json")
    cells = [
        (
            r["name"],
            *(f"{r['engines'][key]['median_ms']:.3f}" for key in (one, many)),
            f"{1 / r['engines'][many]['ratio']:.2f}",
            f"{r['cores_used']:.2f}",
        )
        for r in rows
    ]
    print(render_table(["network", f"{one}, ms", f"{many}, ms", "times faster", f"cores got with {many}"], cells))


def _cores_used(call: Callable[[], object], rounds: int) -> float:
    """Seconds of processor time in a second: about 1 where other processes hold the other cores."""
    before, used = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        call()
    return (time.process_time() - used) / (time.perf_counter() - before)


def _steps(one: Program, many: Program, x: torch.Tensor, rounds: int) -> str:
    """The ten steps that lose the most time against a perfect split."""
    before, after = profile(one, x, rounds=rounds), profile(many, x, rounds=rounds)
    pairs = list(zip(before.rows, after.rows, strict=True))
    threads = max(2, int(os.environ["HL_NUM_THREADS"]))
    pairs.sort(key=lambda pair: pair[0].ms / threads - pair[1].ms)
    cells = [
        (
            a.op,
            a.layer,
            shape_text(a.step.inputs[0]),
            shape_text(a.step.output),
            b.step.how,
            f"{a.ms:.3f}",
            f"{b.ms:.3f}",
            f"{a.ms / b.ms:.2f}",
        )
        for a, b in pairs[:10]
    ]
    columns = ["op", "layer", "input", "output", "schedule", "1 thread, ms", f"{threads} threads, ms", "times faster"]
    return render_table(columns, cells, text_columns=5)


if __name__ == "__main__":
    main()
