"""Runs one op on its kernel, under a schedule, on aligned buffers of its own."""

from __future__ import annotations

from collections.abc import Sequence

import halide as hl
import numpy as np
import torch

from netopt.kernels.buffers import aligned_floats
from netopt.kernels.compile import KERNELS, compile_kernel
from netopt.kernels.cpu import host_cpu
from netopt.kernels.kernel import Problem, Schedule
from netopt.ops import Op, TensorType


def problem_of(op: Op, inputs: Sequence[torch.Tensor], threads: int = 1) -> Problem:
    """The problem of applying `op` to tensors of these shapes."""
    types = tuple(TensorType(tuple(x.shape)) for x in inputs)
    return Problem(op, types, op.infer(types), threads)


def run_kernel(
    op: Op,
    inputs: Sequence[torch.Tensor],
    *,
    constants: Sequence[int] = (),
    schedule: Schedule | None = None,
    threads: int = 1,
    in_place: int | None = None,
) -> torch.Tensor:
    """The op's result from its kernel.

    Args:
        constants: inputs that are packed.
        schedule: the default one if None.
        in_place: input whose buffer is the output's, too.
    """
    cpu, problem = host_cpu(), problem_of(op, inputs, threads)
    kernel = KERNELS[type(op)]
    schedule = schedule or kernel.schedules(problem, cpu)[0]
    shapes = kernel.argument_shapes(problem, schedule, cpu)
    arrays = [aligned_floats(shape) for shape in shapes]
    for index, (array, value) in enumerate(zip(arrays[:-1], inputs, strict=True)):
        data = value.contiguous().numpy()
        array[...] = (
            kernel.pack(problem, schedule, cpu, index, data) if index in constants else data.reshape(array.shape)
        )
    if in_place is None:
        arrays[-1][...] = np.nan
    else:
        assert arrays[in_place].shape == shapes[-1]
        arrays[-1] = arrays[in_place]
    compile_kernel(problem, schedule, cpu)(*(hl.Buffer(array) for array in arrays))
    return torch.from_numpy(arrays[-1].reshape(problem.output.shape).copy())
