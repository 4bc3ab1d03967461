"""Loops over vectors, and their split over threads.

Halide's thread pool can grow but not shrink, so the number of threads is bounded by the schedule: no parallel loop for
one thread, and exactly n chunks for n.
"""

from __future__ import annotations

import halide as hl

from netopt.kernels.machine.cpu import Cpu

# A chunk below this many elements is not worth waking a thread for (about 5 us).
SMALLEST_CHUNK = 16384


def vector_of(size: int, cpu: Cpu, bytes_: int = 4) -> int:
    """Elements of a vector along a loop of `size`, of a type of so many bytes: of narrow ones what leaves few alone."""
    widths = [cpu.lanes]
    while widths[-1] * bytes_ < cpu.lanes * 4:
        widths.append(2 * widths[-1])
    return min(reversed(widths), key=lambda width: size // width + size % width)


def vectorize_and_split(func: hl.Func, inner: hl.Var, size: int, lanes: int, threads: int) -> None:
    """Vectorize the innermost loop of `size` elements, and give each thread one run of it where that pays.

    Each element is written once, so that the output may take the place of an input.
    """
    chunk = -(-size // threads)
    if threads > 1 and chunk >= SMALLEST_CHUNK:
        outer = hl.Var("chunk")
        func.split(inner, outer, inner, -(-chunk // lanes) * lanes, hl.TailStrategy.GuardWithIf).parallel(outer)
    func.vectorize(inner, lanes, hl.TailStrategy.GuardWithIf)


def split_rows(func: hl.Func | hl.Stage, row: hl.Var | hl.RVar, rows: int, elements: int, threads: int) -> None:
    """Give each thread one run of rows where that pays; `elements` are those of the whole output, or that it reads."""
    if threads > 1 and rows >= threads and elements // threads >= SMALLEST_CHUNK:
        outer = hl.RVar("chunk") if isinstance(row, hl.RVar) else hl.Var("chunk")
        func.split(row, outer, row, -(-rows // threads), hl.TailStrategy.GuardWithIf).parallel(outer)
