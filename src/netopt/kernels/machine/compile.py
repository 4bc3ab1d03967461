"""Just-in-time compilation, once for each problem and schedule in a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Kernel, Pipeline, Problem, Schedule
from netopt.ops import Op

# Identical layers share a kernel, and so do programs.
_compiled: dict[tuple[str, Schedule, str, str], hl.Callable] = {}
_lock = threading.Lock()


def _wait_for_compiler() -> None:
    """Wait for a compilation that runs: the compiler has locks of its own, which a child would find held."""
    _lock.acquire()


def _go_on() -> None:
    _lock.release()


def _unlock_in_child() -> None:
    """A forked process has no other threads, and so none that would end what it was in."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_compiler, after_in_parent=_go_on, after_in_child=_unlock_in_child)

# A compiled function, and the arrays that it is to be called with.
BoundCall = tuple[hl.Callable, tuple[Array, ...]]


def bind_kernel(
    kernel: Kernel[Any, Any],
    problem: Problem[Op],
    schedule: Schedule,
    cpu: Cpu,
    arrays: Sequence[Array],
    scratch: Array | None = None,
) -> list[BoundCall]:
    """The machine code for `problem` under `schedule`, ready to be called, in order, on these arrays.

    Args:
        kernel: that of the problem's op.
        problem: what is computed.
        schedule: one of the kernel's own.
        cpu: what to compile for.
        arrays: one for each input and the output, of the shapes that the kernel's `argument_shapes` gives.
        scratch: memory of `Op.scratch_bytes`, flat; None where the op needs none.
    """
    bound, code = [], kernel.code_problem(problem).key()
    for call in kernel.calls(problem, schedule, cpu, arrays, scratch):
        key = (code, schedule, cpu.target, call.key)
        with _lock:
            if key not in _compiled:
                _compiled[key] = _jit(call.build(), cpu)
            bound.append((_compiled[key], call.arrays))
    return bound


def _jit(pipeline: Pipeline, cpu: Cpu) -> hl.Callable:
    return pipeline.output.compile_to_callable([source.param for source in pipeline.inputs], hl.Target(cpu.target))
