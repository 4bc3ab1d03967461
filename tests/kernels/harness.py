"""Runs one op on its kernel, under a schedule, on aligned buffers of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import halide as hl
import numpy as np
import torch

from netopt.kernels.machine.buffers import aligned_array, aligned_bytes, array_at, array_bytes, strides_of
from netopt.kernels.machine.compile import bind_kernel
from netopt.kernels.machine.cpu import Cpu, host_cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Problem, Schedule
from netopt.kernels.registry import KERNELS
from netopt.numerics import (
    BFLOAT16,
    FLOAT32,
    SIGN_BITS,
    SIGNS,
    CodeFormat,
    NumberFormat,
    Shape,
    align_up,
    format_of,
    pack_signs,
    unpack_signs,
)
from netopt.ops import ROW_MAJOR, Layout, Op, TensorType


def problem_of(
    op: Op,
    inputs: Sequence[torch.Tensor],
    threads: int = 1,
    layouts: Sequence[Layout] = (),
    output: Layout = ROW_MAJOR,
    output_format: NumberFormat | None = None,
    formats: Sequence[NumberFormat] = (),
) -> Problem:
    """The problem of applying `op` to tensors of these shapes and types, and layouts where they are given.

    Of int8, signs, the first is a value and the others are constants. The output is float32, or of whole numbers where
    the op gives such. With `formats` these are the formats of all inputs, whose tensors are what they encode to.
    """
    layouts = [*layouts, *[ROW_MAJOR] * (len(inputs) - len(layouts))]
    others: dict[torch.dtype, NumberFormat] = {torch.bfloat16: BFLOAT16, torch.int8: SIGN_BITS}
    types = [
        TensorType(tuple(x.shape), formats[index] if formats else format_of(x.dtype) or others[x.dtype], at)
        for index, (x, at) in enumerate(zip(inputs, layouts, strict=True))
    ]
    if inputs and inputs[0].dtype == torch.int8 and not formats:
        types[0] = dataclasses.replace(types[0], format=SIGNS)
    given = op.infer(types)
    format_ = output_format or (given.format if given.format.is_whole else FLOAT32)
    return Problem(op, tuple(types), TensorType(given.shape, format_, output), threads)


def in_memory(x: torch.Tensor, layout: Layout, zero: int | None = None) -> torch.Tensor:
    """The tensor as it lies in memory, with zeros in its halo; signs before they are packed."""
    if not layout.channels_last:
        return x.contiguous()
    top, bottom, left, right = layout.halo
    if zero is None:
        zero = 1 if x.dtype == torch.int8 else 0  # the bit of +1
    return torch.nn.functional.pad(x, (left, right, top, bottom), value=zero).permute(0, 2, 3, 1).contiguous()


def data_of(x: torch.Tensor, type_: TensorType) -> Array:
    """The elements, or words of signs, of an operand as they follow each other in memory."""
    data = type_.format.to_array(in_memory(x, type_.layout, _zero_of(type_.format)))
    return pack_signs(data).view(np.uint32) if type_.format == SIGNS else data


def _zero_of(format_: NumberFormat) -> int | None:
    """The code of 0, of formats of codes."""
    return format_.zero if isinstance(format_, CodeFormat) else None


def signs_from_words(words: Array, type_: TensorType) -> torch.Tensor:
    """What `from_memory` takes, of packed signs; asserts that what a row's last word is filled with is zeros."""
    *rows, channels = type_.layout.physical(type_.shape)
    signs = unpack_signs(words.reshape(*rows, -1).view(np.uint8), channels)
    assert np.array_equal(pack_signs(signs).view(np.uint32), words.reshape(*rows, -1))
    return torch.from_numpy(signs)


def from_memory(memory: torch.Tensor, type_: TensorType) -> torch.Tensor:
    """The inverse of `in_memory`; asserts that the halo is zeros."""
    memory = memory.reshape(type_.layout.physical(type_.shape))
    if not type_.layout.channels_last:
        return memory
    top, _, left, _ = type_.layout.halo
    image = memory.permute(0, 3, 1, 2)[:, :, top : top + type_.shape[2], left : left + type_.shape[3]]
    assert torch.equal(in_memory(image, type_.layout, _zero_of(type_.format)), memory) or image.isnan().any()
    return image


# Twice the same 16 bits, so that it is one number in float32, and one in bfloat16.
_BESIDE = np.uint16(0xC2F6)
_FIRST_CHANNEL = 3


def allocate(shape: Shape, type_: TensorType) -> tuple[Array, Array]:
    """All memory around an operand, filled with a number that must stay there, and the operand in it.

    One with a pitch begins at a channel that no vector is aligned to.
    """
    strides = strides_of(shape, type_)
    size = align_up(max(type_.span, array_bytes(shape, type_.format)))
    memory = aligned_bytes(size + 4 * max(64, type_.layout.pitch))
    memory.view(np.uint16).fill(_BESIDE)
    start = type_.format.storage_bytes((_FIRST_CHANNEL,)) if strides else 0
    return memory, array_at(memory, start, shape, type_.format, strides)


def assert_nothing_written_beside(memory: Array, operand: Array) -> None:
    """Raise unless all memory but the operand is what it was."""
    start = operand.ctypes.data - memory.ctypes.data
    within = np.zeros(memory.shape, np.bool_)
    shape, strides = (*operand.shape, operand.itemsize), (*operand.strides, 1)
    np.ndarray(shape, np.bool_, within.view(np.uint8), start, strides)[...] = True
    untouched = np.full(memory.size // 2, _BESIDE).view(np.uint8)
    assert (memory[~within] == untouched[~within]).all()


def run_kernel(
    op: Op,
    inputs: Sequence[torch.Tensor],
    *,
    constants: Sequence[int] = (),
    schedule: Schedule | None = None,
    threads: int = 1,
    in_place: int | None = None,
    layouts: Sequence[Layout] = (),
    output: Layout = ROW_MAJOR,
    output_format: NumberFormat | None = None,
    formats: Sequence[NumberFormat] = (),
    cpu: Cpu | None = None,
) -> torch.Tensor:
    """The op's result from its kernel.

    Args:
        inputs: float32, or bfloat16 or whole numbers where the kernel is to read that; int8 are signs, see
            `problem_of`.
        constants: inputs that are packed.
        schedule: the default one if None.
        in_place: input whose buffer is the output's, too.
        layouts: of the first inputs; the others are row-major.
        output: layout of the result, whose halo is checked.
        output_format: what the kernel is to write, if it is not what the op gives; signs are returned as int8.
        formats: of all inputs, where they are codes.
        cpu: whose code to run, which the host must be able to; the host if None.
    """
    cpu, problem = cpu or host_cpu(), problem_of(op, inputs, threads, layouts, output, output_format, formats)
    kernel = KERNELS[type(op)]
    schedule = schedule or kernel.schedules(problem, cpu)[0]
    shapes = kernel.argument_shapes(problem, schedule, cpu)
    types = [*problem.inputs, problem.output]
    for index in constants:
        types[index] = TensorType(shapes[index], types[index].format)  # packed
    memories, arrays = map(list, zip(*(allocate(s, t) for s, t in zip(shapes, types, strict=True)), strict=True))
    for index, (array, value) in enumerate(zip(arrays[:-1], inputs, strict=True)):
        data = data_of(value, problem.inputs[index])
        array[...] = (
            kernel.pack(problem, schedule, cpu, index, data) if index in constants else data.reshape(array.shape)
        )
    if in_place is None:
        unwritten = np.uint32(2**32 - 1)
        nan = problem.output.format.encode(torch.tensor(torch.nan))
        arrays[-1][...] = unwritten if output_format == SIGNS else problem.output.format.to_array(nan)
    else:
        assert arrays[in_place].shape == shapes[-1]
        memories[-1], arrays[-1] = memories[in_place], arrays[in_place].view(problem.output.format.dtype)
    scratch_bytes = op.scratch_bytes(problem.inputs)
    scratch = aligned_array((scratch_bytes // 4,)) if scratch_bytes else None
    if scratch is not None:
        scratch[...] = np.nan
    for function, each in bind_kernel(KERNELS[type(problem.op)], problem, schedule, cpu, arrays, scratch):
        function(*(hl.Buffer(array) for array in each))
    words = arrays[-1].copy()
    if output_format == SIGNS:
        result = signs_from_words(words, problem.output)
    else:
        result = problem.output.format.to_tensor(words, words.shape)
    assert_nothing_written_beside(memories[-1], arrays[-1])
    return from_memory(result, problem.output)


def assert_packing_is_undone(
    problem: Problem,
    schedule: Schedule,
    tensors: Sequence[torch.Tensor],
    constants: Sequence[int] = (1, 2),
    cpu: Cpu | None = None,
) -> None:
    """Weight and bias, or `constants`, are packed in the shape that the kernel takes, and unpacked to the bit."""
    kernel, cpu = KERNELS[type(problem.op)], cpu or host_cpu()
    for index in constants:
        value = tensors[index].numpy()
        packed = kernel.pack(problem, schedule, cpu, index, value)
        assert packed.shape == kernel.argument_shapes(problem, schedule, cpu)[index]
        assert np.array_equal(kernel.unpack(problem, schedule, cpu, index, packed), value)
