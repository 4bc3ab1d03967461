"""Kernels outside of programs, compiled for a CPU other than the one that they run on: for it without AVX-512."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import halide as hl

from netopt.kernels.machine.buffers import aligned_array
from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Kernel, Problem


def without_avx512() -> Cpu:
    """The CPU that this process runs on, as if it had no AVX-512.

    Raises:
        ValueError: it has none.
    """
    features = host_cpu().target.split("-")
    if not any(feature.startswith("avx512") for feature in features):
        raise ValueError(f"this CPU has no AVX-512 to leave out: {host_cpu().target}")
    return Cpu.of(hl.Target("-".join(f for f in features if not f.startswith(("avx512", "avx10")))))


def kernel_call(
    kernel: Kernel, problem: Problem, cpu: Cpu, x: Array, constants: Sequence[Array]
) -> tuple[Callable[[], None], Array]:
    """One run of a kernel under its default schedule, and the array that it writes.

    Args:
        kernel: of the problem's op, one that needs no scratch.
        problem: what it computes.
        cpu: what it is compiled for.
        x: the first input as it lies in memory, at a multiple of 64 bytes; a later write to it is seen.
        constants: the other inputs, as in the graph.
    """
    schedule = kernel.schedules(problem, cpu)[0]
    *shapes, shape = kernel.argument_shapes(problem, schedule, cpu)
    arrays = [x.reshape(shapes[0])]
    for index, value in enumerate(constants, start=1):
        arrays.append(aligned_array(shapes[index], problem.inputs[index].format))
        arrays[-1][...] = kernel.pack(problem, schedule, cpu, index, value)
    arrays.append(aligned_array(shape, problem.output.format))
    bound = []
    for call in kernel.calls(problem, schedule, cpu, arrays, None):
        pipeline = call.build()
        inputs = [source.param for source in pipeline.inputs]
        function = pipeline.output.compile_to_callable(inputs, hl.Target(cpu.target))
        bound.append((function, [hl.Buffer(array) for array in call.arrays]))

    def run() -> None:
        for function, buffers in bound:
            function(*buffers)

    return run, arrays[-1]
