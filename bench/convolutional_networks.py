"""Convolutional networks at float32, one thread: netopt against the engines of bench/peers.py.

    taskset -c 0 python bench/convolutional_networks.py [--rounds N] [--batch N] [--only NAME ...]

All engines take turns in one process; medians; ratios to eager PyTorch (below 1 is faster). Weights are random, batch
norms have running statistics as after training. Writes bench/results/convolutional_networks.json and prints a table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from table import Row, against_peers, publish
from torch import nn

from netopt import zoo

# network, input of one image, rounds for one
NETWORKS = {
    "lenet5": (zoo.lenet5, (1, 28, 28), 100),
    "resnet23": (zoo.resnet23, (3, 32, 32), 60),
    "squeezenet1_1": (zoo.squeezenet1_1, (3, 224, 224), 10),
    "mobilenet_v2": (zoo.mobilenet_v2, (3, 224, 224), 10),
    "resnet18": (zoo.resnet18, (3, 224, 224), 6),
    "resnet50": (zoo.resnet50, (3, 224, 224), 4),
    "vgg19": (zoo.vgg19, (3, 224, 224), 3),
}


def main() -> None:
    """Measure all rows, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="the same for all networks")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with torch.inference_mode():
        for name in options.only:
            make, image, rounds = NETWORKS[name]
            x = torch.randn(options.batch, *image)
            model = _as_trained(make())
            rows.append(against_peers(f"{name}, batch {options.batch}", model, x, options.rounds or rounds))
    publish(rows, Path(__file__).parent / "results" / "convolutional_networks.json")


def _as_trained(model: nn.Module) -> nn.Module:
    """In eval mode, with statistics that folding cannot ignore."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


if __name__ == "__main__":
    main()
