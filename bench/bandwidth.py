"""How fast a core reads, from its own cache, from the shared one, and from memory."""

from __future__ import annotations

import time

import halide as hl
import numpy as np
import torch

from netopt.kernels.machine.buffers import aligned_bytes
from netopt.kernels.machine.cpu import host_cpu

# Bytes that the second-level cache, the last one, and none of the caches of a usual server hold.
SIZES = {"own cache": 2**19, "shared cache": 2**23, "memory": 2**28}


def bandwidths(seconds: float = 0.3) -> dict[str, float]:
    """By place, GB/s of the fastest of the reads that `seconds` had time for, at least three."""
    result = {}
    for name, size in SIZES.items():
        array, sums = aligned_bytes(size).view(np.float32), torch.empty(_sums()).numpy()
        array[:] = 1
        function = _read(size // 4)
        buffers = hl.Buffer(array), hl.Buffer(sums)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            before = time.perf_counter()
            function(*buffers)
            times.append(time.perf_counter() - before)
        result[name] = size / min(times) / 1e9
    return result


def _sums() -> int:
    return 8 * host_cpu().lanes


def _read(floats: int) -> hl.Callable:
    """The sum of all numbers, eight vectors at once."""
    # --- algorithm
    cpu, width = host_cpu(), _sums()
    source, c, total, out = hl.ImageParam(hl.Float(32), 1, "source"), hl.Var("c"), hl.Func("total"), hl.Func("out")
    k = hl.RDom([(0, floats // width)], "k")
    total[c] = hl.f32(0.0)
    total[c] += source[c + width * k.x]
    out[c] = total[c]
    # --- schedule
    out.bound(c, 0, width).vectorize(c, cpu.lanes).unroll(c)
    total.compute_at(out, hl.Var.outermost()).store_in(hl.MemoryType.Stack).vectorize(c, cpu.lanes).unroll(c)
    total.update().reorder(c, k.x).vectorize(c, cpu.lanes).unroll(c)
    source.set_host_alignment(64)
    return out.compile_to_callable([source], hl.Target(cpu.target))
