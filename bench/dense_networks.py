"""Dense networks at float32, one thread: netopt against eager PyTorch, torch.compile, ONNX Runtime and OpenVINO.

    taskset -c 0 python bench/dense_networks.py [--rounds N]

All engines take turns in one process; medians; ratios to eager PyTorch (below 1 is faster). Writes
bench/results/dense_networks.json and prints a table. The last rows compare the wide network with itself factored at
rank 25 %, both lowered.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from table import Row, against_peers, publish, row
from torch import nn

import netopt
from netopt.factorization import SVD
from netopt.timing import interleaved
from netopt.zoo import mlp

NETWORKS = {"mlp 784-1024-1024-10": (784, 1024, 1024, 10), "wide mlp 4096-4096-4096-1000": (4096, 4096, 4096, 1000)}
BATCHES = (1, 32)
RANK = 0.25


def main() -> None:
    """Measure all rows, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with torch.inference_mode():
        for name, sizes in NETWORKS.items():
            model = mlp(*sizes).eval()
            for batch in BATCHES:
                rows.append(against_peers(f"{name}, batch {batch}", model, torch.randn(batch, sizes[0]), rounds))
        rows.append(_factored(name, model, torch.randn(1, sizes[0]), rounds))
    publish(rows, Path(__file__).parent / "results" / "dense_networks.json")


def _factored(name: str, model: nn.Module, x: torch.Tensor, rounds: int) -> Row:
    factored = netopt.optimize(model, SVD(rank=RANK), lower=True, example=x, tune=True).program
    original = netopt.lower(model, x, tune=True)
    assert factored is not None
    calls = {"netopt tuned": lambda: original(x), "netopt factored": lambda: factored(x)}
    timings = interleaved(calls, rounds=rounds, burst=3)
    return row(f"{name}, batch 1, factored at rank {RANK:.0%}", timings, "netopt tuned", {})


if __name__ == "__main__":
    main()
