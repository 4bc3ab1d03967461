"""Binary layers at batch 1, one thread: netopt, with floats or packed signs in and out, against float32 and int8.

    taskset -c 0 python bench/binary_layers.py [--rounds N] [--only LAYER ...]

3 x 3 convolutions with stride 1 and padding 1, and a dense layer of 4096 x 4096. All versions take turns in one process
(Larq Compute Engine in one of its own, in turn, too); medians of three times N calls.

- netopt float32, netopt binary: whole calls, floats in and out, with the copies to and from the order of channels that
  convolutions take. The binary one packs signs and scales sums.
- ..., steps: the same without those copies, as within a network: packing and convolution, timed in a running program.
- netopt binary, packed: the second of three convolutions with batch normalizations between them, timed in the running
  program: it reads and writes packed signs, for the normalization and the next sign became thresholds.
- ... AVX2: the kernels of the steps, compiled for this CPU without AVX-512.
- PyTorch: eager (oneDNN), channels last, which it takes and gives without copies, as Larq Compute Engine does: what to
  compare them with is the steps. OpenVINO copies to and from its own order, too. Its int8 is after NNCF's quantization,
  floats in and out.

Factors of steps and of packed layers are to the steps in float32, those of AVX2 code to float32 in AVX2 code, all
others to whole calls in float32. The bound is a loop of exclusive or, count of bits and addition in registers, in
float32 one of fused multiply-adds, measured in the same turns. Prints a table and puts each row, as soon as it is
measured, into bench/results/binary_layers.json, in place of an older one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import peers
import torch
from core_peak import Loop, float32_loop, sign_loop
from kernel_calls import kernel_call, without_avx512
from table import Row, merge
from torch import nn
from torch.nn import functional as F
from versions import FLOAT32, PYTORCH, Steps, Version, check_close, checked, measure, show

import netopt
from netopt.kernels.binary_conv2d import BinaryConv2dKernel
from netopt.kernels.conv2d import Conv2dKernel
from netopt.kernels.machine.buffers import aligned_array
from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.sign import SignKernel
from netopt.numerics import FLOAT32 as FLOATS
from netopt.numerics import SIGN_BITS, SIGNS
from netopt.ops import CHANNELS_LAST, BinaryConv2d, Conv2d, Layout, Sign, TensorType
from netopt.quantization import LowBitConv2d, LowBitLinear, SignInputs, SignWeights

CONVOLUTIONS = {
    "64 x 56 x 56": (64, 56),
    "128 x 28 x 28": (128, 28),
    "256 x 14 x 14": (256, 14),
    "512 x 7 x 7": (512, 7),
}
DENSE = "dense 4096 x 4096"
STEPS, AVX2 = f"{FLOAT32}, steps", f"{FLOAT32}, AVX2"
# Steps of a bound: about as long as a layer, for a longer loop is interrupted more often on a machine in use.
STEPS_OF_BOUND = 50_000
SIGN_BOUND, FLOAT_BOUND = "bound of signs", "bound of float32"


def main() -> None:
    """Measure all rows, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    names = [*CONVOLUTIONS, DENSE]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="LAYER", help="; ".join(names))
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with torch.inference_mode():
        for name in options.only:
            rows.append(dense(4096, options.rounds) if name == DENSE else convolution(name, options.rounds))
            merge(rows[-1:], Path(__file__).parent / "results" / "binary_layers.json")
    show(rows)


def convolution(name: str, rounds: int) -> Row:
    """The row of a convolution."""
    channels, size = CONVOLUTIONS[name]
    x, conv = torch.randn(1, channels, size, size), _conv(channels).eval()
    binary, chain = _binary(conv).eval(), _chain(channels)
    plain, signs, packed = (checked(netopt.lower(m, x), m, x) for m in (conv, binary, chain))
    versions = {
        FLOAT32: Version(call=partial(plain, x), bound=FLOAT_BOUND),
        STEPS: Version(call=Steps(plain, x), baseline=STEPS, bound=FLOAT_BOUND),
        "netopt binary": Version(call=partial(signs, x), bound=SIGN_BOUND),
        "netopt binary, steps": Version(call=Steps(signs, x), baseline=STEPS, bound=SIGN_BOUND),
        "netopt binary, packed": Version(call=Steps(packed, x, ["2"]), baseline=STEPS, bound=SIGN_BOUND),
    }
    bounds = _bounds(host_cpu())
    try:
        narrow = without_avx512()
    except ValueError as error:
        print(f"{name}: skipped AVX2: {error}")
    else:
        bounds |= {f"{bound}, AVX2": loop for bound, loop in _bounds(narrow).items()}
        calls = {AVX2: _float_kernel(conv, x, narrow), "netopt binary, AVX2": _binary_kernels(conv, x, narrow)}
        for label, bound in zip(calls, (FLOAT_BOUND, SIGN_BOUND), strict=True):
            versions[label] = Version(call=calls[label], baseline=AVX2, bound=f"{bound}, AVX2")
    others = {
        PYTORCH: partial(peers.channels_last, conv, x),
        "OpenVINO f32": partial(peers.openvino_f32, conv, x),
        "OpenVINO int8": partial(peers.openvino_int8, conv, x),
        "Larq Compute Engine": partial(peers.Larq, channels, size),
    }
    multiply_adds = plain.multiply_adds
    return measure(f"conv 3 x 3, {name}", versions, others, bounds, rounds=rounds, multiply_adds=multiply_adds)


def dense(size: int, rounds: int) -> Row:
    """The row of a dense layer."""
    x, layer = torch.randn(1, size), nn.Linear(size, size).eval()
    binary = LowBitLinear.of(layer, SignWeights(), SignInputs()).eval()
    weights = LowBitLinear.of(layer, SignWeights()).eval()
    plain, signs, mixed = (checked(netopt.lower(m, x), m, x) for m in (layer, binary, weights))
    versions = {
        FLOAT32: Version(call=partial(plain, x), bound=FLOAT_BOUND),
        "netopt binary": Version(call=partial(signs, x), bound=SIGN_BOUND),
        "netopt binary weights": Version(call=partial(mixed, x), bound=FLOAT_BOUND),
    }
    others = {
        PYTORCH: partial(peers.eager, layer, x),
        "OpenVINO f32": partial(peers.openvino_f32, layer, x),
        "OpenVINO int8": partial(peers.openvino_int8, layer, x),
    }
    bounds, multiply_adds = _bounds(host_cpu()), plain.multiply_adds
    return measure(f"dense {size} x {size}", versions, others, bounds, rounds=rounds, multiply_adds=multiply_adds)


def _bounds(cpu: Cpu) -> dict[str, Loop]:
    return {FLOAT_BOUND: float32_loop(cpu, STEPS_OF_BOUND), SIGN_BOUND: sign_loop(cpu, STEPS_OF_BOUND)}


# --- layers


def _conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


def _binary(conv: nn.Conv2d) -> nn.Module:
    layer: nn.Module = LowBitConv2d.of(conv, SignWeights(), SignInputs())
    return layer


def _chain(channels: int) -> nn.Module:
    """Three binary convolutions; the second, named "2", reads and writes signs."""
    layers = []
    for _ in range(3):
        norm = nn.BatchNorm2d(channels)
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2.0)
        layers += [_binary(_conv(channels)), norm]
    return nn.Sequential(*layers[:-1]).eval()


# --- kernels


def _float_kernel(conv: nn.Conv2d, x: torch.Tensor, cpu: Cpu) -> Callable[[], None]:
    """The float32 convolution alone: its input lies in memory as it takes it."""
    shape = tuple(x.shape)
    image = TensorType(shape, FLOATS, Layout(True, (1, 1, 1, 1)))
    problem = Problem(
        Conv2d(padding=(1, 1, 1, 1)),
        (image, TensorType(tuple(conv.weight.shape))),
        TensorType(shape, FLOATS, CHANNELS_LAST),
    )
    source = aligned_array(image.layout.physical(shape))
    source[:, 1:-1, 1:-1] = x.permute(0, 2, 3, 1).numpy()
    run, y = kernel_call(Conv2dKernel(), problem, cpu, source, [conv.weight.numpy()])
    run()
    check_close(torch.from_numpy(y).reshape(x.permute(0, 2, 3, 1).shape), conv(x).permute(0, 2, 3, 1))
    return run


def _binary_kernels(conv: nn.Conv2d, x: torch.Tensor, cpu: Cpu) -> Callable[[], None]:
    """Packing and the binary convolution with a scale, floats in and out."""
    shape, outputs = tuple(x.shape), len(conv.weight)
    plain = TensorType(shape, FLOATS, CHANNELS_LAST)
    signs = TensorType(shape, SIGNS, Layout(True, (1, 1, 1, 1)))
    source = aligned_array(CHANNELS_LAST.physical(shape))
    source[...] = x.permute(0, 2, 3, 1).numpy()
    pack, words = kernel_call(SignKernel(), Problem(Sign(), (plain,), signs), cpu, source, [])
    op = BinaryConv2d(padding=(1, 1, 1, 1), has_scale=True)
    types = (signs, TensorType(tuple(conv.weight.shape), SIGN_BITS), TensorType((outputs,)))
    weight, scale = conv.weight.sign(), torch.rand(outputs)
    constants = [weight.to(torch.int8).numpy(), scale.numpy()]
    convolve, y = kernel_call(BinaryConv2dKernel(), Problem(op, types, plain), cpu, words, constants)

    def run() -> None:
        pack()
        convolve()

    run()
    expected = F.conv2d(x.sign(), weight, padding=1) * scale[:, None, None]
    check_close(torch.from_numpy(y).reshape(source.shape), expected.permute(0, 2, 3, 1))
    return run


if __name__ == "__main__":
    main()
