"""The values of a problem, as they are given and as they lie in memory, and what is right as its output."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Problem, Schedule
from netopt.kernels.registry import KERNELS
from netopt.numerics import FLOAT32, INT32, Shape, SignFormat, pack_signs
from netopt.ops import BinaryConv2d, BinaryDense, Sign, TensorType
from tests.tolerance import gamma


def values_of(problem: Problem) -> list[Array]:
    """Inputs as the op's reference takes them: signs as int8, thresholds as int32, floats."""
    generator = np.random.default_rng(0)
    values = [_random(type_, generator) for type_ in problem.inputs]
    if isinstance(problem.op, Sign):
        values[0].reshape(-1)[:5] = (0.0, -0.0, np.inf, np.nan, -np.nan)
        if problem.op.has_threshold:
            values[1][:2] = (np.inf, -np.inf)
            values[2] = generator.choice([-1.0, 1.0], values[2].shape).astype(np.float32)
    return values


def _random(type_: TensorType, generator: np.random.Generator) -> Array:
    if isinstance(type_.format, SignFormat):
        return generator.choice([-1, 1], type_.shape).astype(np.int8)
    if type_.format == INT32:
        return generator.integers(-12, 12, type_.shape, dtype=np.int32)
    assert type_.format == FLOAT32
    return generator.standard_normal(type_.shape, dtype=np.float32)


def argument(problem: Problem, schedule: Schedule, cpu: Cpu, index: int, value: Array) -> Array:
    """Input `index` as the kernel's pipelines take it."""
    if index == 1 or value.ndim == 1:
        return KERNELS[type(problem.op)].pack(problem, schedule, cpu, index, value)
    return in_memory(value, problem.inputs[index], _groups(problem) if index == 0 else 1)


def in_memory(value: Array, type_: TensorType, groups: int = 1) -> Array:
    """The value in its layout, with +1 or 0 in its halo; signs in words, those of each group from a word on."""
    is_signs = isinstance(type_.format, SignFormat)
    if type_.layout.channels_last:
        top, bottom, left, right = type_.layout.halo
        sides = [(0, 0), (top, bottom), (left, right), (0, 0)]
        value = np.pad(value.transpose(0, 2, 3, 1), sides, constant_values=1 if is_signs else 0)
    if not is_signs:
        return np.ascontiguousarray(value)
    return pack_signs(value.reshape(*value.shape[:-1], groups, -1)).view("<u4")


def _groups(problem: Problem) -> int:
    return problem.op.groups if isinstance(problem.op, BinaryConv2d) else 1


def expected(problem: Problem, values: list[Array], shape: Shape) -> tuple[Array, Array | float]:
    """What the memory of the output, of this shape, should hold, and how far it may be off: 0 for signs and sums."""
    y = _reference(problem, values)
    groups = _groups(problem)
    if isinstance(problem.output.format, SignFormat):
        return in_memory(y.astype(np.int8), problem.output, groups).reshape(shape), 0.0
    exact = in_memory(y, problem.output).reshape(shape)
    if (roundings := _roundings(problem)) == 0:
        return exact, 0.0
    # The sum of magnitudes, which bounds what each rounding may be of; relu makes no error larger.
    size = in_memory(_reference(problem, [abs(value) for value in values]), problem.output).reshape(shape)
    return exact, gamma(roundings) * size


def _reference(problem: Problem, values: list[Array]) -> Array:
    tensors = [torch.from_numpy(value).double() for value in values]
    result: Array = problem.op.reference(*tensors).numpy()
    return result


def _roundings(problem: Problem) -> int:
    """How many roundings a number of the output went through: of sums of floats, and of what comes after the sum."""
    op: Any = problem.op
    if not isinstance(op, BinaryConv2d | BinaryDense):
        return 0
    products = 0 if op.reads_signs(problem.inputs) else problem.inputs[1].elements // problem.inputs[1].shape[0]
    return products + int(op.has_scale) + int(op.has_bias) + int(op.has_residual)
