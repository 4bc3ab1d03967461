"""Dense networks at float32, one thread: netopt against eager PyTorch, torch.compile, ONNX Runtime and OpenVINO.

    taskset -c 0 python bench/dense_networks.py [--rounds N]

All engines take turns in one process; medians; ratios to eager PyTorch (below 1 is faster). Writes
bench/results/dense_networks.json and prints a table. The last rows compare the wide network with itself factored at
rank 25 %, both lowered.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import machine
import peers
import torch
from torch import nn

import netopt
from netopt.console import render_table
from netopt.factorization import SVD
from netopt.files import write_atomically
from netopt.timing import Timing, interleaved
from netopt.zoo import mlp

NETWORKS = {"mlp 784-1024-1024-10": (784, 1024, 1024, 10), "wide mlp 4096-4096-4096-1000": (4096, 4096, 4096, 1000)}
BATCHES = (1, 32)
RANK = 0.25
RESULTS = Path(__file__).parent / "results" / "dense_networks.json"


def main() -> None:
    """Measure all rows, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    with torch.inference_mode():
        for name, sizes in NETWORKS.items():
            model = mlp(*sizes).eval()
            for batch in BATCHES:
                rows.append(_against_peers(name, model, torch.randn(batch, sizes[0]), rounds))
        rows.append(_factored(name, model, torch.randn(1, sizes[0]), rounds))
    result = {"machine": machine.describe(), "threads": 1, "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomically(RESULTS, [json.dumps(result, indent=1).encode()])
    print(_table(rows))
    print(json.dumps(result["machine"]))


def _against_peers(name: str, model: nn.Module, x: torch.Tensor, rounds: int) -> dict[str, object]:
    calls, absent = peers.prepare(model, x)
    timings = interleaved(calls, rounds=rounds, burst=3)
    return _row(f"{name}, batch {len(x)}", timings, "eager", absent)


def _factored(name: str, model: nn.Module, x: torch.Tensor, rounds: int) -> dict[str, object]:
    factored = netopt.optimize(model, SVD(rank=RANK), lower=True, example=x, tune=True).program
    original = netopt.lower(model, x, tune=True)
    assert factored is not None
    calls = {"netopt tuned": lambda: original(x), "netopt factored": lambda: factored(x)}
    timings = interleaved(calls, rounds=rounds, burst=3)
    return _row(f"{name}, batch 1, factored at rank {RANK:.0%}", timings, "netopt tuned", {})


def _row(name: str, timings: dict[str, Timing], reference: str, absent: dict[str, str]) -> dict[str, object]:
    figures = {
        engine: {
            "median_ms": timing.median,
            "quartiles_ms": [timing.lower_quartile, timing.upper_quartile],
            "samples": timing.samples,
            "ratio": timing.median / timings[reference].median,
        }
        for engine, timing in timings.items()
    }
    return {"name": name, "reference": reference, "engines": figures, "absent": absent}


def _cell(figure: dict[str, float] | None) -> str:
    return f"{figure['median_ms']:.3f} ms ({figure['ratio']:.2f})" if figure else "-"


def _table(rows: list[dict[str, object]]) -> str:
    engines = [*peers.ENGINES, "netopt factored"]
    cells = []
    for row in rows:
        figures = row["engines"]
        cells.append(
            [row["name"]]
            + [
                f"{figures[e]['median_ms']:.3f} ms ({figures[e]['ratio']:.2f})" if e in figures else "-"
                for e in engines
            ]
        )
    table = render_table(["network", *engines], cells)
    notes = {f"{engine}: {reason}" for row in rows for engine, reason in row["absent"].items()}
    return "\n".join([table, *(f"skipped {note}" for note in sorted(notes))])


if __name__ == "__main__":
    main()
