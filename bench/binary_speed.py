"""Binary networks, one thread, batch 1: netopt in float32 and binary, against PyTorch and OpenVINO in float32 and int8.

    taskset -c 0 python bench/binary_speed.py [--rounds N] [--only NETWORK ...]

- resnet18, 224 x 224: binary is zoo.bireal18: a shortcut around each 3 x 3 convolution, all but the first binary.
- resnet23, 32 x 32: binary is XNOR on its 3 x 3 convolutions but the first, with batch normalizations before the signs;
  binary weights is BinaryWeight on all layers.

Weights are random, batch norms have running statistics as after training. Inexact is with Winograd's algorithm. The
peers run the network in float32 or, after NNCF's quantization, in int8, floats in and out; OpenVINO's int8 in processes
of their own: as it is, and limited to AVX-512 with VNNI (ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI), which is the same where
the CPU has no AMX. All versions take turns; medians of three times N calls. Prints a table and puts each row, as soon
as it is measured, into bench/results/binary_speed.json, in place of an older one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import peers
import torch
from networks import as_trained
from table import Row, merge
from torch import nn
from versions import FLOAT32, PYTORCH, Version, checked, measure, show

import netopt
from netopt import zoo
from netopt.quantization import XNOR, BinaryWeight

INEXACT = f"{FLOAT32}, inexact"
# Winograd's algorithm has about ten times the rounding errors.
INEXACT_TOLERANCE = 1e-4


def main() -> None:
    """Measure all rows, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="the same for all networks")
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with torch.inference_mode():
        for name in options.only:
            study, rounds = NETWORKS[name]
            rows.append(study(options.rounds or rounds))
            merge(rows[-1:], Path(__file__).parent / "results" / "binary_speed.json")
    show(rows)


def resnet18(rounds: int) -> Row:
    """The row of ResNet-18 and Bi-Real Net of 18 layers."""
    x = torch.randn(1, 3, 224, 224)
    return _row("resnet18, batch 1", zoo.resnet18(), {"netopt binary (bireal18)": zoo.bireal18()}, x, rounds)


def resnet23(rounds: int) -> Row:
    """The row of ResNet23."""
    techniques = {"netopt binary, 3 x 3": XNOR(select=_is_inner_3x3), "netopt binary weights": BinaryWeight(select="*")}
    made = {k: netopt.optimize(zoo.resnet23(), t, keep_if="always").model for k, t in techniques.items()}
    return _row("resnet23, batch 1", zoo.resnet23(), made, torch.randn(1, 3, 32, 32), rounds)


def _is_inner_3x3(layer: netopt.Layer) -> bool:
    return isinstance(layer.module, nn.Conv2d) and layer.kernel_size == (3, 3) and not layer.is_first


def _row(name: str, plain: nn.Module, binary: dict[str, nn.Module], x: torch.Tensor, rounds: int) -> Row:
    plain = as_trained(plain)
    programs = {
        FLOAT32: checked(netopt.lower(plain, x), plain, x),
        INEXACT: checked(netopt.lower(plain, x, exact=False), plain, x, INEXACT_TOLERANCE),
    }
    for label, model in binary.items():
        programs[label] = checked(netopt.lower(as_trained(model), x), model, x)
    versions = {label: Version(call=partial(program, x)) for label, program in programs.items()}
    others = {
        PYTORCH: partial(peers.channels_last, plain, x),
        "OpenVINO f32": partial(peers.openvino_f32, plain, x),
        "OpenVINO int8": partial(peers.OpenVinoInt8, plain, x),
        "OpenVINO int8, VNNI": partial(peers.OpenVinoInt8, plain, x, "AVX512_CORE_VNNI"),
    }
    return measure(name, versions, others, {}, rounds=rounds)


# How each is studied, and rounds of three calls.
NETWORKS: dict[str, tuple[Callable[[int], Row], int]] = {"resnet18": (resnet18, 20), "resnet23": (resnet23, 100)}


if __name__ == "__main__":
    main()
