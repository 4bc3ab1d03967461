"""Train the reference networks on real data and on Friedman's function, from nothing: `train_zoo.py DATA OUT [NAMES]`.

DATA holds cifar-10-batches-bin and MNIST/raw; OUT gets checkpoints, logs and NAME.safetensors. A killed training goes
on where it was. The weights that the zoo ships were made so; their logs are in bench/logs.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

import netopt
from netopt import zoo
from netopt.datasets import Batches, Split, cifar10, friedman, mnist
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
    bfloat16: bool = True  # where the CPU multiplies such numbers


_CIFAR = partial(Batches, size=128, flip=True, shift=4)
RECIPES = {
    "resnet23": Recipe(zoo.resnet23, cifar10, _CIFAR, epochs=40, lr=0.1, weight_decay=5e-4),
    "vgg11_half": Recipe(zoo.vgg11_half, cifar10, _CIFAR, epochs=40, lr=0.1, weight_decay=5e-4),
    # Its depthwise convolutions take longer in bfloat16, and its batches are to stay in the cache.
    "mobilenet_v2_cifar": Recipe(
        *(zoo.mobilenet_v2_cifar, cifar10, partial(_CIFAR, size=64)),
        epochs=12,
        lr=0.08,
        weight_decay=2e-4,
        bfloat16=False,
    ),
    "lenet5": Recipe(zoo.lenet5, mnist, partial(Batches, size=128, shift=2), epochs=25, lr=0.02, weight_decay=5e-4),
}
NAMES = (*RECIPES, "friedman_net")


def accuracy(model: nn.Module, split: Split) -> Accuracy:
    """Of the model in eval mode."""
    with torch.inference_mode():
        classes = torch.cat([model(images).argmax(1) for images in split.images.split(500)])
    return Accuracy(int((classes == split.labels).sum()), len(split))


def train(name: str, data: Path, out: Path, epochs: int | None = None) -> nn.Module:
    """The trained network; from its file if that is there. With `epochs` not as many as in the recipe, but so many."""
    recipe = RECIPES[name] if epochs is None else replace(RECIPES[name], epochs=epochs)
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
        bfloat16=recipe.bfloat16 and host_cpu().has_bfloat16,
        checkpoint=out / f"{name}.checkpoint",
        on_epoch=note,
    )
    note(f"accuracy on all {len(test):,} test images: {accuracy(trained.eval(), test)}")
    netopt.save_weights(trained, out / f"{name}.safetensors")
    return trained


def train_friedman_net(out: Path, epochs: int = 20, size: int = 100, lr: float = 0.005) -> nn.Module:
    """The trained network for Friedman's function, which takes seconds."""
    torch.manual_seed(0)
    model = zoo.friedman_net()
    training, test = friedman()
    mean, std = training.targets.mean(), training.targets.std()
    inputs, targets = (training.inputs - 0.5) * math.sqrt(12), (training.targets - mean) / std
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    steps = epochs * (len(training) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        for chosen in torch.randperm(len(training)).split(size):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
            schedule.step()
    _fold(model, mean, std)
    with torch.inference_mode():
        rmse = [nn.functional.mse_loss(model(part.inputs), part.targets).sqrt() for part in (training, test)]
    line = (
        f"friedman_net: {epochs} epochs of {len(training):,} points, AdamW, lr {lr}, PyTorch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {host_cpu().target}\n"
        f"root mean square error, where the noise alone has 1: training {rmse[0]:.4f}, "
        f"{len(test):,} test points {rmse[1]:.4f}"
    )
    print(line, flush=True)
    (out / "friedman_net.log").write_text(f"{line}\n")
    netopt.save_weights(model, out / "friedman_net.safetensors")
    return model


@torch.no_grad()
def _fold(model: nn.Sequential, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Put what was done to inputs and targets into the first and the last layer."""
    first, last = model[0], model[-1]
    first.weight *= math.sqrt(12)
    first.bias -= 0.5 * first.weight.sum(1)
    last.weight *= std
    last.bias.copy_(last.bias * std + mean)


def main() -> None:
    """Train what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAMES", help=f"of {', '.join(NAMES)}; without them all")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, help="instead of those of the recipe")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or NAMES:
        if name == "friedman_net":
            train_friedman_net(arguments.out)
        else:
            train(name, arguments.data, arguments.out, arguments.epochs)


if __name__ == "__main__":
    main()
