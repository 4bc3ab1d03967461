"""The peak of a core: multiply-adds a second of loops that keep everything in registers.

    taskset -c 0 python bench/core_peak.py [--rounds N]

Float32 by fused multiply-adds, and where the CPU has them products of pairs of bfloat16 (vdpbf16ps). Writes
bench/results/core_peak.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import halide as hl
import machine
import torch

from netopt.console import render_table
from netopt.files import write_atomically
from netopt.kernels.cpu import host_cpu

# Vectors of sums at once: more than the latency of an instruction asks for (six cycles, two a cycle), as many as fit.
SUMS = 24 if host_cpu().registers == 32 else 12
STEPS = 400_000
PAIRS_OF_BFLOAT16 = ("avx512_zen4", "avx512_sapphirerapids")


def peaks(rounds: int) -> dict[str, dict[str, float]]:
    """By format, GMAC/s: of the fastest round, which is the peak, and of the median one."""
    loops = {"float32": _float32(), "bfloat16": _bfloat16()}
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


def _float32() -> Loop:
    """sum = sum * a + b: nothing of it can be taken out of the loop."""
    # --- algorithm
    lanes = host_cpu().lanes
    size, steps = SUMS * lanes, hl.RDom([(0, STEPS)], "steps")
    start, factors = (hl.ImageParam(hl.Float(32), 1, name) for name in ("start", "factors"))
    c, total, out = hl.Var("c"), hl.Func("total"), hl.Func("out")
    total[c] = start[c]
    total[c] = hl.Expr(total[c]) * factors[steps.x % 2] + factors[2]
    out[c] = total[c]
    # --- schedule
    total.update().reorder(c, steps.x).vectorize(c, lanes).unroll(c)
    arrays = [torch.rand(size), torch.tensor([0.5, 0.5, 1.0])]
    return _call(out, total, c, [start, factors], arrays), size * STEPS


def _bfloat16() -> Loop | None:
    """sum += a1 * b1 + a2 * b2, one instruction for a vector of sums."""
    if not any(feature in host_cpu().target for feature in PAIRS_OF_BFLOAT16):
        return None
    # --- algorithm
    lanes = host_cpu().lanes
    size, steps = SUMS * lanes, hl.RDom([(0, 2), (0, STEPS)], "steps")
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
    arrays = [torch.rand(size), torch.rand(4 + 2 * lanes).bfloat16().view(torch.uint16)]
    return _call(out, total, c, [start, bits], arrays), 2 * size * STEPS


def _call(
    out: hl.Func, total: hl.Func, c: hl.Var, inputs: list[hl.ImageParam], arrays: list[torch.Tensor]
) -> Callable[[], object]:
    """The function compiled, its sums in registers, as a call on these arrays."""
    cpu = host_cpu()
    out.bound(c, 0, SUMS * cpu.lanes).vectorize(c, cpu.lanes).unroll(c)
    total.compute_at(out, hl.Var.outermost()).store_in(hl.MemoryType.Stack).vectorize(c, cpu.lanes).unroll(c)
    function = out.compile_to_callable(inputs, hl.Target(cpu.target))
    buffers = [hl.Buffer(array.numpy()) for array in (*arrays, torch.empty(SUMS * cpu.lanes))]
    return lambda: function(*buffers)


if __name__ == "__main__":
    main()
