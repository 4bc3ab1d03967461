"""Denormal numbers are zero while kernels run: on many CPUs arithmetic on them is far slower.

The switch belongs to the thread (MXCSR on x86, FPCR on Arm), and a new thread inherits it from the one that starts it.
Halide's pool starts its threads at a parallel call, within a run of kernels, so that they flush, too, and go on to. All
other threads, and the calling one after the run, are as they were. Where the CPU has no such switch, nothing is done.
See docs/decisions/0012.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import halide as hl
import torch

_SMALLEST_NORMAL = 2.0**-1022

ReadyCall = tuple[hl.Callable, tuple[hl.Buffer, ...]]


def flush_denormals() -> bool:
    """Let the calling thread take denormals for zero; whether that changed anything, and is to be undone.

    A thread that flushes already, be it results or operands alone, is left as it is.
    """
    # The product is denormal: zero if results are flushed, and equal to zero if operands are.
    if _SMALLEST_NORMAL * 0.5 == 0.0:
        return False
    return torch.set_flush_denormal(True)


def keep_denormals() -> None:
    """Undo what `flush_denormals` has changed, in the calling thread."""
    torch.set_flush_denormal(False)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush within the block."""
    flushed = flush_denormals()
    try:
        yield
    finally:
        if flushed:
            keep_denormals()


def make_calls(calls: Sequence[ReadyCall]) -> None:
    """Make the calls one after the other."""
    for function, arguments in calls:
        function(*arguments)


def run_of_kernels(calls: Sequence[ReadyCall]) -> Callable[[], None]:
    """A function that makes the calls one after the other, with denormals flushed."""

    # Written out rather than with `denormals_flushed`, which costs 0.84 us where this costs 0.19 (Zen 5).
    def run() -> None:
        flushed = flush_denormals()
        try:
            make_calls(calls)
        finally:
            if flushed:
                keep_denormals()

    return run
