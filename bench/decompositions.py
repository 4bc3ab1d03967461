"""Decomposed networks on the real CIFAR-10 and MNIST: `decompositions.py DATA OUT [NETWORKS]`.

For each network and method: accuracy on all test images before and after retraining, parameters, multiply-adds; then
the latency of all versions, lowered, in turn in one run. Trains vgg11_half first if OUT does not have it. What is done
is kept in OUT, so that a killed run goes on where it was; `--only-train` and `--only-measure` do the halves.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import machine
import torch
import train_zoo
from torch import nn

import netopt
from netopt import zoo
from netopt.console import count, render_table
from netopt.factorization import CP, Budget, SpatialSVD, Tucker, decompose
from netopt.files import write_atomically
from netopt.kernels.machine.cpu import host_cpu
from netopt.report import Accuracy
from netopt.timing import interleaved
from netopt.training.distillation import Distillation

RESULTS = Path(__file__).parent / "results" / "decompositions.json"
METHODS = {"Tucker": Tucker, "CP": CP, "SpatialSVD": SpatialSVD}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is done to one network.

    Attributes:
        trained: loads its trained weights; None if they are trained here.
        image: shape of one.
        budgets: shares of the multiply-adds, for each method, and epochs of retraining.
        methods: of convolutions that are not 1 x 1.
        multiple: of ranks.
        lr: of retraining.
    """

    trained: Callable[[], nn.Module] | None
    image: tuple[int, ...]
    budgets: dict[float, int]
    methods: tuple[str, ...] = ("Tucker", "CP", "SpatialSVD")
    multiple: int = 8
    lr: float


STUDIES = {
    "resnet23": Study(
        trained=partial(zoo.resnet23, pretrained=True), image=(3, 32, 32), budgets={0.5: 8, 0.65: 4}, lr=0.03
    ),
    "vgg11_half": Study(
        trained=None,
        image=(3, 32, 32),
        budgets={0.3: 10},
        methods=("Tucker", "SpatialSVD"),
        multiple=16,
        lr=0.03,
    ),
    "lenet5": Study(
        trained=partial(zoo.lenet5, pretrained=True),
        image=(1, 28, 28),
        budgets={0.3: 5},
        methods=("Tucker",),
        lr=0.001,
    ),
}


def original(name: str, data: Path, out: Path) -> nn.Module:
    """The trained network, in eval mode."""
    study = STUDIES[name]
    if study.trained is not None:
        return study.trained().eval()
    path = out / f"{name}.safetensors"
    if not path.exists():
        train_zoo.train(name, data, out)
    return netopt.load_weights(train_zoo.RECIPES[name].make(), path).eval()


def study_one(name: str, method: str, budget: float, data: Path, out: Path) -> None:
    """Decompose, judge, retrain, judge; the figures and the weights go into OUT."""
    label = f"{name}-{method}-{budget}"
    if (out / f"{label}.json").exists():
        return
    torch.manual_seed(0)
    study, model = STUDIES[name], original(name, data, out)
    training, test = train_zoo.RECIPES[name].load(data)
    started = time.perf_counter()
    result = decompose(
        model,
        Budget(multiply_adds=budget),
        convolution=METHODS[method](rank=Budget(multiply_adds=budget), multiple=study.multiple),
        example=torch.zeros(1, *study.image),
        calibration=training.images[:512],
        keep_if="always",
    )
    seconds = time.perf_counter() - started
    print(result.report, flush=True)
    before = train_zoo.accuracy(result.model, test)
    print(f"{label}: decomposed in {seconds:.1f} s, {before}", flush=True)
    retrained = netopt.retrain(
        result.model.to(memory_format=torch.channels_last),
        train_zoo.RECIPES[name].batches(training),
        epochs=study.budgets[budget],
        lr=study.lr,
        teacher=model.to(memory_format=torch.channels_last),
        distillation=Distillation(temperature=4.0, weight=0.9),
        optimizer=partial(torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=2e-4),
        bfloat16=host_cpu().has_bfloat16,
        checkpoint=out / f"{label}.checkpoint",
        on_epoch=lambda epoch: print(label, epoch, flush=True),
    )
    after = train_zoo.accuracy(retrained.eval(), test)
    print(f"{label}: {before} -> {after}", flush=True)
    netopt.save_weights(retrained, out / f"{label}.safetensors")
    row = {
        "network": name,
        "method": method,
        "budget": budget,
        "seconds": seconds,
        "epochs": study.budgets[budget],
        "lr": study.lr,
    }
    row |= {"before": before.correct, "after": after.correct, "tested": after.total}
    row["replaced"] = f"{sum(r.replaced for r in result.report.rows)} of {len(result.report.rows)}"
    write_atomically(out / f"{label}.json", [json.dumps(row).encode()])


def measure(name: str, data: Path, out: Path) -> list[dict[str, object]]:
    """Latency of all versions of a network, lowered, in turn, at batch 1 on one thread; with their other figures."""
    study, model = STUDIES[name], original(name, data, out)
    test = train_zoo.RECIPES[name].load(data)[1]
    base = train_zoo.accuracy(model, test)
    rows: list[dict[str, object]] = [
        {"network": name, "method": "original", "budget": 1.0, "after": base.correct, "tested": base.total}
    ]
    models = [model]
    for method in study.methods:
        for budget in study.budgets:
            label = f"{name}-{method}-{budget}"
            rows.append(json.loads((out / f"{label}.json").read_text()))
            models.append(netopt.load_weights(model, out / f"{label}.safetensors").eval())
    add_figures(rows, models, torch.randn(1, *study.image), rounds=200, burst=3, seconds=60)
    return rows


def add_figures(
    rows: list[dict[str, object]],
    models: list[nn.Module],
    x: torch.Tensor,
    *,
    rounds: int,
    burst: int,
    seconds: float | None = None,
) -> None:
    """Put each model's parameters, multiply-adds and latency into its row; all are lowered and called in turn."""
    for row, model in zip(rows, models, strict=True):
        row["parameters"] = sum(p.numel() for p in model.parameters())
    for exact in (True, False):
        programs = [netopt.lower(model, x, exact=exact) for model in models]
        calls = {str(i): partial(program, x) for i, program in enumerate(programs)}
        timings = interleaved(calls, rounds=rounds, burst=burst, seconds=seconds)
        for index, row in enumerate(rows):
            row["exact_ms" if exact else "inexact_ms"] = timings[str(index)].median
            row["multiply_adds"] = programs[index].multiply_adds if exact else row["multiply_adds"]


def notebook(rounds: int) -> list[dict[str, object]]:
    """VGG-19 at 224 x 224 with random weights, ranks at half the channels, as a well-known notebook has it."""
    torch.manual_seed(0)
    model = zoo.vgg19().eval()
    technique = Tucker(rank=0.5, select=lambda layer: not layer.is_first)
    halved = netopt.optimize(model, technique, keep_if="always").model
    rows: list[dict[str, object]] = []
    for method, version in (("original", model), ("Tucker", halved)):
        convolutions = version[:37]
        rows.append({"network": "vgg19", "method": method, "budget": "ranks 1/2"})
        rows[-1]["parameters of convolutions"] = sum(p.numel() for p in convolutions.parameters())
    add_figures(rows, [model, halved], torch.randn(1, 3, 224, 224), rounds=rounds, burst=2)
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """A table with ratios to each network's original."""
    cells = []
    for row in rows:
        base = next(r for r in rows if r["network"] == row["network"] and r["method"] == "original")
        tested = row.get("tested")
        before = Accuracy(row["before"], tested) if "before" in row else "-"
        cells.append(
            (
                row["network"],
                row["method"],
                row["budget"],
                before,
                Accuracy(row["after"], tested) if tested else "-",
                *(f"{count(row[key])} ({row[key] / base[key]:.2f})" for key in ("parameters", "multiply_adds")),
                *(f"{row[key]:.4f} ({base[key] / row[key]:.2f}x)" for key in ("exact_ms", "inexact_ms")),
            )
        )
    columns = ("network", "method", "budget", "before retraining", "accuracy (95 %)", "parameters", "multiply-adds")
    print(render_table((*columns, "ms, exact", "ms, inexact"), cells, text_columns=3))
    print(json.dumps(machine.describe()))


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(STUDIES)}, vgg19; without them all")
    parser.add_argument("--threads", type=int, default=1, help="for training")
    parser.add_argument("--only-train", action="store_true")
    parser.add_argument("--only-measure", action="store_true")
    parser.add_argument("--method", choices=list(METHODS), help="train only this one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.networks or [*STUDIES, "vgg19"]
    if unknown := set(names) - {*STUDIES, "vgg19"}:
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}")
    rows: list[dict[str, object]] = []
    for name in names:
        if name in STUDIES and not arguments.only_measure:
            study = STUDIES[name]
            for budget in study.budgets:
                for method in study.methods:
                    if arguments.method in (None, method):
                        study_one(name, method, budget, arguments.data, arguments.out)
        if not arguments.only_train:
            rows += notebook(10) if name == "vgg19" else measure(name, arguments.data, arguments.out)
    if rows:
        show(rows)
        old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
        kept = [row for row in old if row["network"] not in names]
        write_atomically(RESULTS, [json.dumps({"machine": machine.describe(), "rows": kept + rows}, indent=1).encode()])


if __name__ == "__main__":
    main()
