"""Low-bit networks trained on the real CIFAR-10 and MNIST: `binary_networks.py DATA OUT [NAMES]`.

DATA holds cifar-10-batches-bin and MNIST/raw; OUT gets checkpoints, logs, NAME.safetensors and NAME.PRECISION.nopt. A
killed training goes on where it was. Then all are measured as they run: accuracy of the lowered programs on all test
images, sizes of the files on disk, memory, and latency at batch 1, in turn with the float network that each began as.
`--only-train` and `--only-measure` do the halves.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import machine
import torch
from torch import nn
from train_zoo import accuracy

import netopt
from netopt import zoo
from netopt.console import render_table
from netopt.datasets import Batches, Split, cifar10, mnist
from netopt.files import write_atomically
from netopt.kernels.machine.cpu import host_cpu
from netopt.quantization import XNOR, ApproxSign, Binary, BinaryConnect, BinaryWeight, Residual, binarize_weights
from netopt.timing import interleaved
from netopt.transform.select import layers_of

RESULTS = Path(__file__).parent / "results" / "binary_networks.json"


@dataclass(frozen=True)
class Recipe:
    """How a low-bit network comes to be.

    Attributes:
        start: the network that is transformed, trained or not.
        techniques: what with; all that they replace is kept.
        teacher: for distillation; None: labels alone.
        load: training and test images.
        batches: of the training images.
        epochs: of the last stage.
        lr: the largest learning rate of Adam.
        first_epochs: of the first of two stages; 0: there is one.
        goes_on: the recipe whose trained weights it begins with, in all but the first and the last layer; "": none.
    """

    start: Callable[[], nn.Module]
    techniques: Sequence[netopt.Technique]
    teacher: Callable[[], nn.Module] | None
    load: Callable[[Path], tuple[Split, Split]]
    batches: Callable[[Split], Batches]
    epochs: int
    lr: float
    first_epochs: int = 0
    goes_on: str = ""


_CIFAR = partial(Batches, size=128, flip=True, shift=4)
_MNIST = partial(Batches, size=128, shift=2)
_RESNET23 = partial(zoo.resnet23, pretrained=True)
_LENET5 = partial(zoo.lenet5, pretrained=True)


def _inner(layer: netopt.Layer) -> bool:
    return not layer.is_first and not layer.is_last


RECIPES = {
    "resnet23_binary_weight": Recipe(
        _RESNET23, [BinaryWeight(select="*")], _RESNET23, cifar10, _CIFAR, epochs=24, lr=1e-3
    ),
    "resnet23_binary_weight_ends_of_3_bits": Recipe(
        _RESNET23,
        [Residual(weight_terms=3, select=lambda layer: not _inner(layer)), BinaryWeight(select=_inner)],
        _RESNET23,
        cifar10,
        _CIFAR,
        epochs=12,
        lr=5e-4,
        goes_on="resnet23_binary_weight",
    ),
    "resnet23_binary_connect": Recipe(
        _RESNET23,
        [BinaryConnect(select="*")],
        _RESNET23,
        cifar10,
        _CIFAR,
        epochs=2,
        lr=5e-4,
        goes_on="resnet23_binary_weight",
    ),
    "resnet23_binary_3x3": Recipe(
        _RESNET23,
        [XNOR(estimator=ApproxSign(), select=lambda layer: layer.name.endswith("body.2.0"))],
        _RESNET23,
        cifar10,
        _CIFAR,
        epochs=4,
        lr=1e-3,
    ),
    "resnet23_1w1a": Recipe(
        _RESNET23,
        [XNOR(estimator=ApproxSign(), shortcut=True, rprelu=True, two_stages=True)],
        _RESNET23,
        cifar10,
        _CIFAR,
        epochs=8,
        lr=1e-3,
        first_epochs=2,
    ),
    "vgg_small_quarter_1w1a": Recipe(
        partial(zoo.vgg_small, 32),
        [Binary(normalize=False, select=_inner)],
        None,
        cifar10,
        _CIFAR,
        epochs=6,
        lr=3e-3,
    ),
    "lenet5_binary_conv": Recipe(_LENET5, [XNOR(select="2")], _LENET5, mnist, _MNIST, epochs=15, lr=1e-3),
    "mlp_binary": Recipe(
        partial(zoo.dense_with_norm, 784, 1024, 1024, 1024, 10),
        [Binary(normalize=False, select="*")],
        _LENET5,
        mnist,
        partial(Batches, size=128, shift=1),
        epochs=60,
        lr=3e-3,
    ),
}


def _take_over(model: nn.Module, recipe: Recipe, trained: nn.Module) -> None:
    """Give the model the weights of another version, but those of the first and the last layer."""
    ends = tuple(f"{layer.name}." for layer in layers_of(recipe.start()) if layer.is_first or layer.is_last)
    state = {key: value for key, value in trained.state_dict().items() if not key.startswith(ends)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not key.startswith(ends) for key in missing):
        raise ValueError(f"weights of another network: {unexpected}, {missing}")


def train(name: str, data: Path, out: Path) -> nn.Module:
    """The trained network; from its checkpoint where that is done."""
    recipe = RECIPES[name]
    torch.manual_seed(0)
    model = netopt.optimize(recipe.start(), list(recipe.techniques), keep_if="always").model
    if recipe.goes_on:
        _take_over(
            model, recipe, netopt.load_weights(RECIPES[recipe.goes_on].start(), out / f"{recipe.goes_on}.safetensors")
        )
    model = model.train().to(memory_format=torch.channels_last)
    training, test = recipe.load(data)
    log = out / f"{name}.log"

    def note(line: object) -> None:
        print(name, line, flush=True)
        with log.open("a") as file:
            file.write(f"{line}\n")

    if not any((out / f"{name}.{stage}").exists() for stage in ("first", "checkpoint")):
        log.write_text("")
        note(
            f"{name}: {recipe.first_epochs} + {recipe.epochs} epochs, AdamW, lr {recipe.lr}, PyTorch "
            f"{torch.__version__}, {torch.get_num_threads()} threads, {host_cpu().target}"
        )
    some = Split(test.images[:2000], test.labels[:2000])
    retrain = partial(
        netopt.retrain,
        lr=recipe.lr,
        teacher=None if recipe.teacher is None else recipe.teacher().to(memory_format=torch.channels_last),
        bfloat16=host_cpu().has_bfloat16,
        evaluate=lambda model: accuracy(model, some).share,
        on_epoch=note,
    )
    batches = recipe.batches(training)
    if recipe.first_epochs:
        note("first stage: inputs are binary")
        model = retrain(model, batches, epochs=recipe.first_epochs, checkpoint=out / f"{name}.first")
        model = binarize_weights(model)
        note("second stage: weights, too")
    model = retrain(model, batches, epochs=recipe.epochs, checkpoint=out / f"{name}.checkpoint")
    note(f"accuracy on all {len(test):,} test images: {accuracy(model.eval(), test)}")
    netopt.save_weights(model, out / f"{name}.safetensors")
    return model


def measure(name: str, data: Path, out: Path) -> list[dict[str, object]]:
    """Figures of the float network and of the trained one, lowered."""
    recipe = RECIPES[name]
    _, test = recipe.load(data)
    images, start = test.images, recipe.start().eval()
    template = recipe.start()
    trained = netopt.load_weights(template, out / f"{name}.safetensors").eval()
    versions = {"float": (start, "float32"), "low-bit": (trained, "float32"), "low-bit, bf16": (trained, "bf16")}
    if not host_cpu().has_bfloat16:
        del versions["low-bit, bf16"]
    programs, rows = {}, []
    for version, (model, precision) in versions.items():
        program = netopt.lower(model, images[:1], precision=precision)
        path = out / f"{name}.{version.replace(', ', '_').replace(' ', '_')}.nopt"
        program.save(path)
        programs[version] = partial(program, images[:1])
        right = accuracy(netopt.lower(model, images[:500], precision=precision), test)
        in_pytorch = accuracy(model, test)
        rows.append(
            {
                "network": name,
                "version": version,
                "accuracy": str(right),
                "correct": right.correct,
                "correct_in_pytorch": in_pytorch.correct,
                "file_bytes": path.stat().st_size,
                "arena_bytes": program.arena_bytes,
                "weight_bytes": program.weight_bytes,
            }
        )
    times = interleaved(programs, rounds=100, seconds=20)
    for row in rows:
        row["ms"] = times[str(row["version"])].median
        row["faster"] = times["float"].median / times[str(row["version"])].median
    return rows


def show(rows: Sequence[dict[str, object]]) -> None:
    """Print the figures."""
    columns = ["network", "version", "accuracy, %", "file, bytes", "arena", "weights", "ms", "times faster"]
    cells = [
        (
            row["network"],
            row["version"],
            row["accuracy"],
            *(f"{row[key]:,}" for key in ("file_bytes", "arena_bytes", "weight_bytes")),
            f"{row['ms']:.4f}",
            f"{row['faster']:.2f}",
        )
        for row in rows
    ]
    print(render_table(columns, cells, text_columns=3))
    print(json.dumps(machine.describe()))


def main() -> None:
    """Train and measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAMES", help=f"of {', '.join(RECIPES)}; without them all")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for training")
    parser.add_argument("--only-train", action="store_true")
    parser.add_argument("--only-measure", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(RECIPES):
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for name in arguments.names or RECIPES:
        if not arguments.only_measure:
            train(name, arguments.data, arguments.out)
        if not arguments.only_train:
            torch.set_num_threads(1)
            rows += measure(name, arguments.data, arguments.out)
    if rows:
        show(rows)
        old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
        kept = [row for row in old if row["network"] not in {new["network"] for new in rows}]
        RESULTS.parent.mkdir(exist_ok=True)
        write_atomically(RESULTS, [json.dumps({"machine": machine.describe(), "rows": kept + rows}, indent=1).encode()])


if __name__ == "__main__":
    main()
