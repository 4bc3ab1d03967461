"""Networks of 8 bits, netopt's and others', one thread: `fixed_point_peers.py accuracy DATA OUT [NAMES]`, or `speed`.

    python bench/fixed_point_peers.py accuracy DATA OUT [NAMES]
    taskset -c 0 python bench/fixed_point_peers.py speed OUT [NAMES] [--rounds N] [--seconds N] [--cpu-time]
                                                         [--without ENGINE ...]

`accuracy`: what is made of the same trained weights and the same 512 training images, judged on all test images one by
one, with the bytes of the files. DATA holds cifar-10-batches-bin and MNIST/raw; OUT holds vgg11_half.safetensors, as
bench/train_zoo.py makes it. `speed`: batch 1, all engines in turn in one process, medians, ratios to eager PyTorch;
weights and calibration inputs are random. Prints tables, and appends each row as a line of JSON, as soon as it is
measured, to OUT/peers/accuracy.jsonl and OUT/peers/speed.jsonl; the last line of a name counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dense_networks
import machine
import networks
import peers
import table
import torch
from cpu_time import CpuTimed
from int8_networks import Int8Network, nncf_openvino, onnxruntime_static
from torch import nn

import netopt
from netopt import zoo
from netopt.console import render_table
from netopt.datasets import Split, cifar10, friedman, mnist
from netopt.report import Accuracy
from netopt.timing import SelfTimed, interleaved

CALIBRATION = 512
# Only the ranges depend on them, and speed does not depend on ranges.
RANDOM_CALIBRATION = 8


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A trained network and its data.

    Attributes:
        trained: the network in eval mode; its argument is the folder that has the weights that the zoo does not ship.
        load: inputs to calibrate with, inputs to test with, and what is right for these; its argument is DATA.
        score: of outputs and what is right.
        unit: of the score.
    """

    trained: Callable[[Path], nn.Module]
    load: Callable[[Path], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    score: Callable[[torch.Tensor, torch.Tensor], float]
    unit: str


def _images(load: Callable[[Path], tuple[Split, Split]], data: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    training, test = load(data)
    return training.images[:CALIBRATION], test.images, test.labels


def _percent_right(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return 100 * Accuracy(int((outputs.argmax(1) == labels).sum()), len(labels)).share


_CIFAR10 = partial(Problem, load=partial(_images, cifar10), score=_percent_right, unit="%")
_MNIST = partial(Problem, load=partial(_images, mnist), score=_percent_right, unit="%")


def _friedman(_: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    training, test = friedman()
    return training.inputs[:CALIBRATION], test.inputs, test.targets


def _root_mean_square(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return float((outputs - targets).double().square().mean().sqrt())


def _vgg11_half(folder: Path) -> nn.Module:
    return netopt.load_weights(zoo.vgg11_half(), folder / "vgg11_half.safetensors")


PROBLEMS: dict[str, Problem] = {
    "resnet23": _CIFAR10(trained=lambda _: zoo.resnet23(pretrained=True)),
    "lenet5": _MNIST(trained=lambda _: zoo.lenet5(pretrained=True)),
    "vgg11_half": _CIFAR10(trained=_vgg11_half),
    "mobilenet_v2_cifar": _CIFAR10(trained=lambda _: zoo.mobilenet_v2_cifar(pretrained=True)),
    "friedman": Problem(
        trained=lambda _: zoo.friedman_net(pretrained=True), load=_friedman, score=_root_mean_square, unit="RMSE"
    ),
}


def quantized_program(model: nn.Module, calibration: torch.Tensor, example: torch.Tensor) -> netopt.Program:
    """netopt's network of 8 bits, lowered.

    Args:
        model: the trained network, in eval mode.
        calibration: inputs (number, ...).
        example: an input of the shape that the program is to take.

    Raises:
        NotImplementedError: this version of netopt cannot quantize.
    """
    quantize = getattr(netopt, "quantize", None)
    if quantize is None:
        raise NotImplementedError("this version of netopt has no verb to quantize")
    program: netopt.Program = quantize(model, calibration=calibration, example=example, lower=True).program
    return program


def _netopt_int8(model: nn.Module, calibration: torch.Tensor) -> Int8Network:
    program = quantized_program(model, calibration, calibration[:1].contiguous())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.nopt"
        program.save(path)
        size = path.stat().st_size
    return Int8Network(
        file_bytes=size,
        run=lambda image: program(torch.from_numpy(image)).numpy().copy(),
        timed=lambda image: partial(program, torch.from_numpy(image)),
    )


# The first of each engine is what its documentation recommends on a CPU with VNNI. Not there: ONNX Runtime's "Entropy",
# whose 128 bins for 128 codes leave one threshold to choose, the greatest value; version 1.32 gives MinMax's scales.
QUANTIZERS: dict[str, Callable[[nn.Module, torch.Tensor], Int8Network]] = {
    "openvino int8": nncf_openvino,
    "openvino int8, mixed": partial(nncf_openvino, preset="mixed"),
    "openvino int8, MinMax": partial(nncf_openvino, min_max=True),
    "openvino int8, mixed, MinMax": partial(nncf_openvino, preset="mixed", min_max=True),
    "onnxruntime U8S8, MinMax": onnxruntime_static,
    "onnxruntime U8S8, Percentile": partial(onnxruntime_static, method="Percentile"),
    "onnxruntime S8S8, MinMax": partial(onnxruntime_static, activations="QInt8"),
    "netopt int8": _netopt_int8,
}


def accuracy_of_peers(name: str, data: Path, out: Path, problems: dict[str, Problem] = PROBLEMS) -> table.Row:
    """Score and bytes of what each of QUANTIZERS makes of a network, and the score of the network itself."""
    problem = problems[name]
    model = problem.trained(out).eval()
    calibration, inputs, right = problem.load(data)
    scores: dict[str, dict[str, float]] = {"float32": {"score": problem.score(_float_outputs(model, inputs), right)}}
    absent = {}
    for engine, quantize in QUANTIZERS.items():
        try:
            network = quantize(model, calibration)
            scores[engine] = {"score": problem.score(network(inputs), right), "file_bytes": network.file_bytes}
        except Exception as error:  # noqa: BLE001  # engines fail in their own ways; the table says which did and why
            absent[engine] = peers.reason(error)
    return {"name": name, "unit": problem.unit, "tested": len(right), "engines": scores, "absent": absent}


def _float_outputs(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(batch) for batch in inputs.split(500)])


def show_accuracies(rows: Sequence[table.Row]) -> None:
    """Print the table, and what was skipped."""
    cells = []
    for row in rows:
        whole = row["engines"]["float32"]["score"]
        for engine, figures in row["engines"].items():
            size = f"{figures['file_bytes']:,}" if "file_bytes" in figures else "-"
            score, change = f"{figures['score']:.4f} {row['unit']}", f"{figures['score'] - whole:+.4f}"
            cells.append((row["name"], engine, score, change, size))
    print(render_table(("network", "engine", "score", "against float32", "bytes"), cells, text_columns=2))
    for note in sorted({f"{engine}: {reason}" for row in rows for engine, reason in row["absent"].items()}):
        print(f"skipped {note}")
    print(json.dumps(machine.describe()))


def _networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]]:
    """How each network of the speed table is made, the shape of one input, and rounds."""
    dense = {name: (partial(zoo.mlp, *sizes), sizes[:1], 60) for name, sizes in dense_networks.NETWORKS.items()}
    named = ("lenet5", "resnet23", "resnet18", "mobilenet_v2", "vgg19")
    return dense | {name: networks.NETWORKS[name] for name in named}


def _of_random_ranges(quantize: Callable[[nn.Module, torch.Tensor], Int8Network]) -> peers.Engine:
    def engine(model: nn.Module, x: torch.Tensor) -> peers.Call:
        generator = torch.Generator().manual_seed(0)
        calibration = torch.randn(RANDOM_CALIBRATION, *x.shape[1:], generator=generator)
        return quantize(model, calibration).timed(x.numpy())

    return engine


# The first is what ratios refer to.
ENGINES: dict[str, peers.Engine] = {
    "eager": peers.eager,
    "onnxruntime": peers.ENGINES["onnxruntime"],
    "openvino f32": peers.ENGINES["openvino f32"],
    "netopt": peers.ENGINES["netopt"],
    "onnxruntime U8S8": _of_random_ranges(QUANTIZERS["onnxruntime U8S8, MinMax"]),
    "onnxruntime S8S8": _of_random_ranges(QUANTIZERS["onnxruntime S8S8, MinMax"]),
    "openvino int8": _of_random_ranges(QUANTIZERS["openvino int8"]),
    "netopt int8": _of_random_ranges(QUANTIZERS["netopt int8"]),
}


def _keep(row: table.Row, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({**row, "machine": machine.describe()}) + "\n")


def _accuracy(arguments: argparse.Namespace) -> None:
    rows = []
    for name in arguments.names or PROBLEMS:
        rows.append(accuracy_of_peers(name, arguments.data, arguments.out))
        _keep(rows[-1], arguments.out / "peers" / "accuracy.jsonl")
    show_accuracies(rows)


def _speed(arguments: argparse.Namespace) -> None:
    rows = []
    for name in arguments.names or _networks():
        make, shape, rounds = _networks()[name]
        model, x = networks.as_trained(make()), torch.randn(1, *shape)
        calls, absent = peers.prepare(model, x, arguments.without, ENGINES)
        if arguments.cpu_time:
            calls = {engine: call if isinstance(call, SelfTimed) else CpuTimed(call) for engine, call in calls.items()}
        timings = interleaved(calls, rounds=arguments.rounds or rounds, burst=3, seconds=arguments.seconds)
        rows.append(table.row(name, timings, "eager", absent) | {"clock": "cpu" if arguments.cpu_time else "wall"})
        _keep(rows[-1], arguments.out / "peers" / "speed.jsonl")
    table.show(rows)


def main() -> None:
    """Do the half that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    halves = parser.add_subparsers(required=True)
    half = halves.add_parser("accuracy")
    half.add_argument("data", type=Path)
    half.set_defaults(run=_accuracy, known=list(PROBLEMS))
    half.add_argument("out", type=Path)
    half.add_argument("names", nargs="*", metavar="NAMES", help=f"of {', '.join(PROBLEMS)}; without them all")
    half = halves.add_parser("speed")
    half.set_defaults(run=_speed, known=list(_networks()))
    half.add_argument("out", type=Path)
    half.add_argument("names", nargs="*", metavar="NAMES", help=f"of {', '.join(_networks())}; without them all")
    half.add_argument("--rounds", type=int, help="the same for all networks")
    half.add_argument("--seconds", type=float, help="end a row, after three rounds, when so much has passed")
    half.add_argument("--cpu-time", action="store_true", help="for a machine that is busy: see bench/cpu_time.py")
    half.add_argument("--without", nargs="+", default=[], choices=list(ENGINES)[1:], help="engines to leave out")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(arguments.known):
        parser.error(f"unknown networks: {', '.join(sorted(unknown))}; there are {', '.join(arguments.known)}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with torch.inference_mode():
        arguments.run(arguments)


if __name__ == "__main__":
    main()
