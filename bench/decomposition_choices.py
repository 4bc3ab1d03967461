"""What calibration inputs and measurement are worth, on trained networks: `decomposition_choices.py DATA`.

First which layers EVBMF's ranks make faster, and which not. Then the accuracy of ResNet23 right after its 3 x 3
convolutions were decomposed at equal ranks, with and without calibration inputs, and the mean error of their outputs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import machine
import torch
import train_zoo
from torch import nn

import netopt
from netopt import zoo
from netopt.console import render_table
from netopt.datasets import cifar10
from netopt.factorization import CP, EVBMF, ChannelSVD, DepthwiseSVD, SpatialSVD, Tucker, decompose
from netopt.transform.observe import Observer
from netopt.transform.select import layers_of


def inner(layer: netopt.Layer) -> bool:
    """The 3 x 3 convolutions but the first."""
    return layer.kernel_size == (3, 3) and not layer.is_first


# Ranks that leave about half of the multiply-adds of a 3 x 3 convolution of 32 channels.
METHODS = {
    "Tucker (16, 16)": Tucker(rank=16, select=inner),
    "CP 64": CP(rank=64, select=inner),
    "SpatialSVD 24": SpatialSVD(rank=24, select=inner),
    "ChannelSVD 12": ChannelSVD(rank=12, select=inner),
    "DepthwiseSVD 3": DepthwiseSVD(rank=3, select=inner),
}


def output_error(model: nn.Module, decomposed: nn.Module, images: torch.Tensor) -> float:
    """Mean over the replaced layers of |output - original's| / |original's|, for the original's inputs."""
    errors, observer = [], Observer(model, images)
    for layer in layers_of(model):
        new = decomposed.get_submodule(layer.name)
        if type(new) is type(layer.module) or not isinstance(layer.module, nn.Conv2d):
            continue
        with torch.no_grad():
            pairs = [(layer.module(x), new(x)) for x in observer.inputs(layer.name)]
        wrong = sum(float((a - b).square().sum()) for a, b in pairs)
        errors.append((wrong / sum(float(a.square().sum()) for a, _ in pairs)) ** 0.5)
    return sum(errors) / len(errors)


def calibration(data: Path) -> None:
    """Equal ranks, with and without calibration inputs."""
    training, test = cifar10(data)
    model = zoo.resnet23(pretrained=True)
    # Other images than those that are calibrated on.
    judged = test.images[:500]
    cells = [("original", "", train_zoo.accuracy(model, test), "")]
    for name, technique in METHODS.items():
        for inputs in (None, training.images[:512]):
            new = netopt.optimize(model, technique, calibration=inputs, keep_if="always").model
            error = output_error(model, new, judged)
            cells.append((name, "no" if inputs is None else "yes", train_zoo.accuracy(new, test), f"{error:.3f}"))
            print(*cells[-1], flush=True)
    print(render_table(("method", "calibrated", "accuracy (95 %)", "error of outputs"), cells, text_columns=2))


def measured() -> None:
    """The report of a network whose layers are kept by their time."""
    for make, image in ((zoo.resnet23, (3, 32, 32)), (zoo.lenet5, (1, 28, 28))):
        print(decompose(make(pretrained=True), EVBMF(), example=torch.zeros(1, *image)).report, end="\n\n")


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured()
    calibration(arguments.data)
    print(json.dumps(machine.describe()))


if __name__ == "__main__":
    main()
