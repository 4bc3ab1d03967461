"""Just-in-time compilation, once for each problem and schedule in a process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import halide as hl

from netopt.errors import UnsupportedModel
from netopt.kernels.arithmetic import ArithmeticKernel
from netopt.kernels.conv2d import Conv2dKernel
from netopt.kernels.copies import ConcatKernel, ExpandKernel, PermuteKernel, SliceKernel
from netopt.kernels.cpu import Cpu
from netopt.kernels.dense import DenseKernel
from netopt.kernels.kernel import Kernel, Problem, Schedule
from netopt.kernels.layer_norm import LayerNormKernel
from netopt.kernels.matmul import MatmulKernel
from netopt.kernels.pointwise import PointwiseKernel
from netopt.kernels.pool2d import Pool2dKernel, SpatialMeanKernel
from netopt.kernels.reduce import ReduceKernel
from netopt.kernels.relayout import RelayoutKernel
from netopt.kernels.softmax import SoftmaxKernel
from netopt.ops import Op

# A kernel takes back only schedules of its own making, so their type is nobody else's concern.
KERNELS: dict[type[Op], Kernel[Any]] = {
    kernel.op: kernel
    for kernel in (
        ArithmeticKernel(),
        ConcatKernel(),
        Conv2dKernel(),
        DenseKernel(),
        ExpandKernel(),
        LayerNormKernel(),
        MatmulKernel(),
        PermuteKernel(),
        PointwiseKernel(),
        Pool2dKernel(),
        ReduceKernel(),
        RelayoutKernel(),
        SliceKernel(),
        SoftmaxKernel(),
        SpatialMeanKernel(),
    )
}

# Identical layers share a kernel, and so do programs.
_compiled: dict[tuple[str, Schedule, str], hl.Callable] = {}
_lock = threading.Lock()


def kernel_of(op: Op, layer: str) -> Kernel[Any]:
    """The kernel of an op.

    Raises:
        UnsupportedModel: there is none.
    """
    kernel = KERNELS.get(type(op))
    if kernel is None:
        names = ", ".join(sorted(kind.name for kind in KERNELS))
        raise UnsupportedModel(f"op '{op.name}' has no kernel", expected=f"one of {names}", layer=layer)
    return kernel


def compile_kernel(problem: Problem, schedule: Schedule, cpu: Cpu) -> hl.Callable:
    """The machine code for `problem` under `schedule`, to be called with a buffer for each input and the output."""
    key = (problem.key(), schedule, cpu.target)
    with _lock:
        if key not in _compiled:
            pipeline = KERNELS[type(problem.op)].build(problem, schedule, cpu)
            _compiled[key] = _jit(pipeline.output, pipeline.inputs, cpu)
        return _compiled[key]


def _jit(output: hl.Func, inputs: Sequence[hl.ImageParam], cpu: Cpu) -> hl.Callable:
    return output.compile_to_callable(list(inputs), hl.Target(cpu.target))
