"""The peak of a core: multiply-adds a second of loops that keep everything in registers.

    taskset -c 0 python bench/core_peak.py [--rounds N]

Float32 by fused multiply-adds; signs, packed into bits, by exclusive or, count of bits and addition; and where the CPU
has them products of pairs of bfloat16 (vdpbf16ps). Writes bench/results/core_peak.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import halide as hl
import machine
import numpy as np
import torch

from netopt.console import render_table
from netopt.files import write_atomically
from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.parts.sign_tile import Unit

STEPS = 400_000
PAIRS_OF_BFLOAT16 = ("avx512_zen4", "avx512_sapphirerapids")


def peaks(rounds: int) -> dict[str, dict[str, float]]:
    """By format, GMAC/s: of the fastest round, which is the peak, and of the median one."""
    cpu = host_cpu()
    loops = {"float32": float32_loop(cpu), "bfloat16": _bfloat16_loop(cpu), "signs": sign_loop(cpu)}
    present = {name: loop for name, loop in loops.items() if loop is not None}
    seconds: dict[str, list[float]] = {name: [] for name in present}
    for _ in range(rounds):
        for name, (call, _) in present.items():
            before = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - before)
    result = {}
    for name, (_, work) in present.items():
        times = sorted(seconds[name])
        result[name] = {"peak_gmacs": work / times[0] / 1e9, "median_gmacs": work / times[len(times) // 2] / 1e9}
    return result


def main() -> None:
    """Measure, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    result = {"machine": machine.describe(), "formats": peaks(parser.parse_args().rounds)}
    path = Path(__file__).parent / "results" / "core_peak.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, [json.dumps(result, indent=1).encode()])
    rows = [(name, f"{f['peak_gmacs']:.1f}", f"{f['median_gmacs']:.1f}") for name, f in result["formats"].items()]
    print(render_table(["format", "peak GMAC/s", "median GMAC/s"], rows))
    print(json.dumps(result["machine"]))


Loop = tuple[Callable[[], object], int]  # a call, and its multiply-adds


def float32_loop(cpu: Cpu, number: int = STEPS) -> Loop:
    """`number` steps of sum = sum * a + b: nothing of it can be taken out of the loop."""
    # --- algorithm
    size, steps = _sums(cpu) * cpu.lanes, hl.RDom([(0, number)], "steps")
    start, factors = (hl.ImageParam(hl.Float(32), 1, name) for name in ("start", "factors"))
    c, total, out = hl.Var("c"), hl.Func("total"), hl.Func("out")
    total[c] = start[c]
    total[c] = hl.Expr(total[c]) * factors[steps.x % 2] + factors[2]
    out[c] = total[c]
    # --- schedule
    total.update().reorder(c, steps.x).vectorize(c, cpu.lanes).unroll(c)
    arrays = [torch.rand(size).numpy(), np.array([0.5, 0.5, 1.0], np.float32)]
    return _call(out, total, c, [start, factors], arrays, cpu, cpu.lanes), size * number


def sign_loop(cpu: Cpu, number: int = STEPS) -> Loop:
    """`number` steps of sum += count of bits of (sum ^ a), in the units that the kernels of `cpu` count in."""
    # --- algorithm
    unit = Unit.of(cpu)
    type_ = hl.UInt(unit.bits)
    # Without instructions that count bits a table, a mask and the halves of bytes take registers.
    sums = _sums(cpu, temporaries=0 if cpu.has_popcount else 4)
    size, steps = sums * unit.lanes, hl.RDom([(0, number)], "steps")
    start, words = (hl.ImageParam(type_, 1, name) for name in ("start", "words"))
    c, total, out = hl.Var("c"), hl.Func("total"), hl.Func("out")
    total[c] = start[c]
    total[c] += hl.popcount(hl.Expr(total[c]) ^ words[steps.x % 2])
    out[c] = total[c]
    # --- schedule
    total.update().reorder(c, steps.x).vectorize(c, unit.lanes).unroll(c)
    arrays = [np.arange(size).astype(unit.dtype), np.array([0x55, 0xAA], unit.dtype)]
    return _call(out, total, c, [start, words], arrays, cpu, unit.lanes), unit.bits * size * number


def _bfloat16_loop(cpu: Cpu) -> Loop | None:
    """sum += a1 * b1 + a2 * b2, one instruction for a vector of sums."""
    if not any(feature in cpu.target for feature in PAIRS_OF_BFLOAT16):
        return None
    # --- algorithm
    lanes = cpu.lanes
    size, steps = _sums(cpu) * lanes, hl.RDom([(0, 2), (0, STEPS)], "steps")
    start, bits = hl.ImageParam(hl.Float(32), 1, "start"), hl.ImageParam(hl.UInt(16), 1, "bits")
    c, total, out = hl.Var("c"), hl.Func("total"), hl.Func("out")

    def factor(index: hl.Expr) -> hl.Expr:
        # Python has no buffers of bfloat16.
        return hl.cast(hl.Float(32), hl.reinterpret(hl.BFloat(16), bits[index]))

    total[c] = start[c]
    # Two pairs in turn: with one the product would be the same in each step.
    total[c] += factor(steps.x + 2 * (steps.y % 2)) * factor(4 + steps.x + 2 * (c % lanes))
    out[c] = total[c]
    # --- schedule
    inner = hl.Var("inner")
    update = total.update().split(c, c, inner, lanes).reorder(steps.x, inner, c, steps.y)
    update.atomic().vectorize(inner).vectorize(steps.x).unroll(c)
    arrays = [torch.rand(size).numpy(), torch.rand(4 + 2 * lanes).bfloat16().view(torch.uint16).numpy()]
    return _call(out, total, c, [start, bits], arrays, cpu, lanes), 2 * size * STEPS


def _sums(cpu: Cpu, temporaries: int = 0) -> int:
    """Vectors of sums at once: more than the latency of an instruction asks for (six cycles, two a cycle); all fit."""
    return 24 if cpu.registers == 32 else 12 - temporaries


def _call(
    out: hl.Func,
    total: hl.Func,
    c: hl.Var,
    inputs: list[hl.ImageParam],
    arrays: list[Array],
    cpu: Cpu,
    lanes: int,
) -> Callable[[], object]:
    """The function compiled, its sums in registers, as a call on these arrays."""
    out.bound(c, 0, len(arrays[0])).vectorize(c, lanes).unroll(c)
    total.compute_at(out, hl.Var.outermost()).store_in(hl.MemoryType.Stack).vectorize(c, lanes).unroll(c)
    function = out.compile_to_callable(inputs, hl.Target(cpu.target))
    buffers = [hl.Buffer(array) for array in (*arrays, np.empty_like(arrays[0]))]
    return lambda: function(*buffers)


if __name__ == "__main__":
    main()
