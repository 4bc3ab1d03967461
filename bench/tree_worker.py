"""A network lowered by one source tree of netopt, in a process of its own, and its steps timed; see compare_trees.py.

    PYTHONPATH=SOURCES python bench/tree_worker.py NAME BATCH PRECISION < counts > times

Only public names of netopt are used, so that trees whose modules are elsewhere can be compared. Writes what the steps
are; then for each line, a number n, a list of the seconds of each step for each of n runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
from networks import NETWORKS, as_trained
from torch import nn

import netopt
from netopt.quantization import LowBitConv2d, LowBitLinear, SignInputs, SignWeights

Made = tuple[nn.Module, torch.Tensor]


def main() -> None:
    """Lower the network, then answer until the input ends."""
    name, batch, precision = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, x = MODELS[name](batch)
    program = netopt.lower(model, x, precision=precision)
    steps = {i: step for i, step in enumerate(program.steps) if step.runs}
    labels = [f"{i} {step.op.label} {step.layer} ({step.how})" for i, step in steps.items()]
    print(json.dumps({"path": list(netopt.__path__), "steps": labels}), flush=True)
    for line in sys.stdin:
        print(json.dumps([_seconds(program, x, list(steps)) for _ in range(int(line))]), flush=True)


def _seconds(program: netopt.Program, x: torch.Tensor, indices: list[int]) -> list[float]:
    seconds = dict.fromkeys(indices, 0.0)

    def watch(index: int, run: Callable[[], None]) -> None:
        before = time.perf_counter()
        run()
        seconds[index] = time.perf_counter() - before

    program.call_by_steps(watch, x)
    return list(seconds.values())


# --- what is lowered


def _network(name: str, batch: int) -> Made:
    make, image, _ = NETWORKS[name]
    return as_trained(make()), torch.randn(batch, *image)


def _binary(channels: int, size: int, batch: int) -> Made:
    """Three binary convolutions as in binary_layers.py: the second reads and writes signs."""
    convs = [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(3)]
    layers = [(LowBitConv2d.of(conv, SignWeights(), SignInputs()), nn.BatchNorm2d(channels)) for conv in convs]
    model = as_trained(nn.Sequential(*[layer for pair in layers for layer in pair][:-1]))
    return model, torch.randn(batch, channels, size, size)


def _binary_weights(channels: int, size: int, batch: int) -> Made:
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    return LowBitConv2d.of(conv, SignWeights()).eval(), torch.randn(batch, channels, size, size)


def _dense(size: int, batch: int, *, signs: bool) -> Made:
    layer = nn.Linear(size, size)
    return LowBitLinear.of(layer, SignWeights(), SignInputs() if signs else None).eval(), torch.randn(batch, size)


def _layer(layer: nn.Module, shape: tuple[int, ...], batch: int) -> Made:
    return layer.eval(), torch.randn(batch, *shape)


_SIZES = {64: 56, 128: 28, 256: 14, 512: 7}
MODELS: dict[str, Callable[[int], Made]] = {
    **{name: lambda batch, name=name: _network(name, batch) for name in NETWORKS},
    **{f"binary {c} x {s} x {s}": lambda batch, c=c, s=s: _binary(c, s, batch) for c, s in _SIZES.items()},
    **{f"binary weights {c}": lambda batch, c=c, s=s: _binary_weights(c, s, batch) for c, s in _SIZES.items()},
    "binary dense": lambda batch: _dense(4096, batch, signs=True),
    "binary weights dense": lambda batch: _dense(4096, batch, signs=False),
    "dense": lambda batch: _layer(nn.Linear(4096, 4096), (4096,), batch),
    "transposed": lambda batch: _layer(nn.ConvTranspose2d(64, 64, 4, 2, 1), (64, 28, 28), batch),
}


if __name__ == "__main__":
    main()
