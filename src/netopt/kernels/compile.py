"""Just-in-time compilation, once for each problem and schedule in a process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import halide as hl

from netopt.errors import UnsupportedModel
from netopt.kernels.adaptive_pool2d import AdaptivePool2dKernel
from netopt.kernels.arithmetic import ArithmeticKernel
from netopt.kernels.binary_conv2d import BinaryConv2dKernel
from netopt.kernels.binary_dense import BinaryDenseKernel
from netopt.kernels.conv2d import Conv2dKernel
from netopt.kernels.conv_transpose2d import ConvTranspose2dKernel
from netopt.kernels.copies import ConcatKernel, ExpandKernel, PermuteKernel, SliceKernel
from netopt.kernels.cpu import Cpu
from netopt.kernels.dense import DenseKernel
from netopt.kernels.formats import Array
from netopt.kernels.kernel import Kernel, Pipeline, Problem, Schedule
from netopt.kernels.layer_norm import LayerNormKernel
from netopt.kernels.matmul import MatmulKernel
from netopt.kernels.pad import PadKernel
from netopt.kernels.pointwise import PointwiseKernel
from netopt.kernels.pool2d import Pool2dKernel, SpatialMeanKernel
from netopt.kernels.reduce import ReduceKernel
from netopt.kernels.relayout import RelayoutKernel
from netopt.kernels.resize import ResizeKernel
from netopt.kernels.shuffle import ChannelShuffleKernel, PixelShuffleKernel, PixelUnshuffleKernel
from netopt.kernels.sign import SignKernel
from netopt.kernels.sign_pool2d import SignPool2dKernel
from netopt.kernels.softmax import SoftmaxKernel
from netopt.kernels.winograd2d import Winograd2dKernel
from netopt.ops import Op

# A kernel takes back only schedules of its own making, so their type is nobody else's concern.
KERNELS: dict[type[Op], Kernel[Any]] = {
    kernel.op: kernel
    for kernel in (
        AdaptivePool2dKernel(),
        ArithmeticKernel(),
        BinaryConv2dKernel(),
        BinaryDenseKernel(),
        ChannelShuffleKernel(),
        ConcatKernel(),
        Conv2dKernel(),
        ConvTranspose2dKernel(),
        DenseKernel(),
        ExpandKernel(),
        LayerNormKernel(),
        MatmulKernel(),
        PadKernel(),
        PermuteKernel(),
        PixelShuffleKernel(),
        PixelUnshuffleKernel(),
        PointwiseKernel(),
        Pool2dKernel(),
        ReduceKernel(),
        RelayoutKernel(),
        ResizeKernel(),
        SignKernel(),
        SignPool2dKernel(),
        SliceKernel(),
        SoftmaxKernel(),
        SpatialMeanKernel(),
        Winograd2dKernel(),
    )
}

# Identical layers share a kernel, and so do programs.
_compiled: dict[tuple[str, Schedule, str, str], hl.Callable] = {}
_lock = threading.Lock()

# A compiled function, and the arrays that it is to be called with.
BoundCall = tuple[hl.Callable, tuple[Array, ...]]


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


def bind_kernel(
    problem: Problem, schedule: Schedule, cpu: Cpu, arrays: Sequence[Array], scratch: Array | None = None
) -> list[BoundCall]:
    """The machine code for `problem` under `schedule`, ready to be called, in order, on these arrays.

    Args:
        arrays: one for each input and the output, of the shapes that the kernel's `argument_shapes` gives.
        scratch: memory of `Op.scratch_bytes`, flat; None where the op needs none.
    """
    bound = []
    for call in KERNELS[type(problem.op)].calls(problem, schedule, cpu, arrays, scratch):
        key = (problem.key(), schedule, cpu.target, call.key)
        with _lock:
            if key not in _compiled:
                _compiled[key] = _jit(call.build(), cpu)
            bound.append((_compiled[key], call.arrays))
    return bound


def _jit(pipeline: Pipeline, cpu: Cpu) -> hl.Callable:
    return pipeline.output.compile_to_callable([source.param for source in pipeline.inputs], hl.Target(cpu.target))
