"""Networks for images, one thread: netopt against the engines of bench/peers.py.

    taskset -c 0 python bench/convolutional_networks.py [--rounds N] [--seconds N] [--batch N ...] [--only NAME ...]
                                                        [--untuned] [--without ENGINE ...]

All engines take turns in one process; medians; ratios to eager PyTorch (below 1 is faster). Weights are random, batch
norms have running statistics as after training. Prints a table and puts each row, as soon as it is measured, into
bench/results/convolutional_networks.json, in place of an older one of the same network and batch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from networks import NETWORKS, as_trained
from peers import ENGINES
from table import Row, against_peers, merge, show


def main() -> None:
    """Measure all rows, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="the same for all networks and batches")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seconds", type=float, help="end a row, after three rounds, when so much has passed")
    parser.add_argument("--untuned", action="store_true", help="leave out what measures schedules first")
    parser.add_argument("--without", nargs="+", default=[], choices=list(ENGINES), help="engines to leave out")
    options = parser.parse_args()
    without = [*options.without, *(name for name in ENGINES if options.untuned and name.endswith("tuned"))]
    path = Path(__file__).parent / "results" / "convolutional_networks.json"
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with torch.inference_mode():
        for name in options.only:
            make, image, rounds = NETWORKS[name]
            model = as_trained(make())
            for batch in options.batch:
                # A larger batch takes longer, and its noise averages out.
                own = options.rounds or max(2, rounds // batch)
                x = torch.randn(batch, *image)
                rows.append(against_peers(f"{name}, batch {batch}", model, x, own, without, options.seconds))
                merge(rows[-1:], path)
    show(rows)


if __name__ == "__main__":
    main()
