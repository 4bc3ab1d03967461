"""Train the reference networks on the real CIFAR-10 and MNIST, from random weights: `train_zoo.py DATA OUT [NAMES]`.

DATA holds cifar-10-batches-bin and MNIST/raw; OUT gets checkpoints, logs and NAME.safetensors. A killed training goes
on where it was. The weights of resnet23 and lenet5 that the zoo ships were made so; their logs are in bench/logs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

import netopt
from netopt import zoo
from netopt.datasets import Batches, Split, cifar10, mnist
from netopt.kernels.machine.cpu import host_cpu
from netopt.report import Accuracy


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    make: Callable[[], nn.Module]
    load: Callable[[Path], tuple[Split, Split]]
    batches: Callable[[Split], Batches]
    epochs: int
    lr: float
    weight_decay: float
    label_smoothing: float = 0.0


_CIFAR = partial(Batches, size=128, flip=True, shift=4)
RECIPES = {
    "resnet23": Recipe(zoo.resnet23, cifar10, _CIFAR, epochs=40, lr=0.1, weight_decay=5e-4),
    "vgg11_half": Recipe(zoo.vgg11_half, cifar10, _CIFAR, epochs=40, lr=0.1, weight_decay=5e-4),
    "lenet5": Recipe(zoo.lenet5, mnist, partial(Batches, size=128, shift=2), epochs=25, lr=0.02, weight_decay=5e-4),
}


def accuracy(model: nn.Module, split: Split) -> Accuracy:
    """Of the model in eval mode."""
    with torch.inference_mode():
        classes = torch.cat([model(images).argmax(1) for images in split.images.split(500)])
    return Accuracy(int((classes == split.labels).sum()), len(split))


def train(name: str, data: Path, out: Path) -> nn.Module:
    """The trained network; from its file if that is there."""
    recipe = RECIPES[name]
    torch.manual_seed(0)
    model = recipe.make().to(memory_format=torch.channels_last)
    training, test = recipe.load(data)
    log = out / f"{name}.log"

    def note(line: object) -> None:
        print(name, line, flush=True)
        with log.open("a") as file:
            file.write(f"{line}\n")

    if not (out / f"{name}.checkpoint").exists():
        log.write_text("")
        note(
            f"{name}: {recipe.epochs} epochs, SGD with Nesterov momentum 0.9, lr {recipe.lr}, weight decay "
            f"{recipe.weight_decay}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads, "
            f"{host_cpu().target}"
        )
    trained = netopt.retrain(
        model,
        recipe.batches(training),
        epochs=recipe.epochs,
        lr=recipe.lr,
        optimizer=partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay),
        label_smoothing=recipe.label_smoothing,
        bfloat16=host_cpu().has_bfloat16,
        checkpoint=out / f"{name}.checkpoint",
        on_epoch=note,
    )
    note(f"accuracy on all {len(test):,} test images: {accuracy(trained.eval(), test)}")
    netopt.save_weights(trained, out / f"{name}.safetensors")
    return trained


def main() -> None:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAMES", help=f"of {', '.join(RECIPES)}; without them all")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(RECIPES):
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or RECIPES:
        train(name, arguments.data, arguments.out)


if __name__ == "__main__":
    main()
