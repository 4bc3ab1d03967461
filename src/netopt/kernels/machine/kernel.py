"""What a kernel is: for one op, an algorithm in Halide and a table of schedules for it."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import halide as hl

from netopt.kernels.machine.buffers import row_major_strides, strides_of
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source
from netopt.numerics import FLOAT32, NumberFormat, Shape
from netopt.ops import Op, TensorType
from netopt.ops.serialize import op_to_json

OpT = TypeVar("OpT", bound=Op)
OpT_co = TypeVar("OpT_co", bound=Op, covariant=True)


@dataclass(frozen=True)
class Problem(Generic[OpT_co]):
    """All that the generated code depends on, apart from schedule and CPU: of one kind of op."""

    op: OpT_co
    inputs: tuple[TensorType, ...]
    output: TensorType
    threads: int = 1

    def key(self) -> str:
        """A text that equals another problem's only where the problems are equal."""
        types = [
            [list(t.shape), t.format.to_json(), dataclasses.astuple(t.layout)] for t in (*self.inputs, self.output)
        ]
        return json.dumps([op_to_json(self.op), types, self.threads], sort_keys=True)


@dataclass(frozen=True)
class Schedule:
    """How a kernel runs: fields are what may be tuned. This one is for kernels that leave no choice."""

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(self).items()) or "plain"


S = TypeVar("S", bound=Schedule)


@dataclass(frozen=True)
class Pipeline:
    """A scheduled Halide function and its inputs, in the order of the op's inputs."""

    output: hl.Func
    inputs: tuple[Source, ...]


@dataclass(frozen=True)
class Call:
    """One call of compiled code.

    Attributes:
        key: tells this pipeline from the others of the same problem and schedule; "" where there is but one.
        build: makes the pipeline.
        arrays: what it is called with: an array for each input, then the output.
    """

    key: str
    build: Callable[[], Pipeline]
    arrays: tuple[Array, ...]


class Kernel(ABC, Generic[OpT, S]):
    """The kernels of one op."""

    op: ClassVar[type[Op]]

    @abstractmethod
    def schedules(self, problem: Problem[OpT], cpu: Cpu) -> Sequence[S]:
        """The schedules that can run this problem; the first is the default."""

    @abstractmethod
    def argument_shapes(self, problem: Problem[OpT], schedule: S, cpu: Cpu) -> tuple[Shape, ...]:
        """The row-major shape in which the pipeline takes each input and the output, last.

        A computed value or a graph input has the same elements as in the graph; a constant is as `pack` returns it.
        """

    @abstractmethod
    def calls(
        self, problem: Problem[OpT], schedule: S, cpu: Cpu, arrays: Sequence[Array], scratch: Array | None
    ) -> Sequence[Call]:
        """What to call, in order, to compute the op once.

        Args:
            arrays: one of the shape that `argument_shapes` gives for each input, then for the output.
            scratch: memory of `Op.scratch_bytes`, flat; None where the op needs none.
        """

    def pack(self, problem: Problem[OpT], schedule: S, cpu: Cpu, index: int, value: Array) -> Array:
        """Constant input `index` in the layout that the pipeline takes."""
        return value.reshape(self.argument_shapes(problem, schedule, cpu)[index])

    def code_problem(self, problem: Problem[OpT]) -> Problem[OpT]:
        """What of a problem the machine code depends on: what is data for it is the same for all problems."""
        return problem

    def packing(self, problem: Problem[OpT], schedule: S) -> tuple[int, ...]:
        """What `pack` depends on besides the shapes: layers share a packed constant only where they agree in it."""
        return ()

    def unpack(self, problem: Problem[OpT], schedule: S, cpu: Cpu, index: int, packed: Array) -> Array:
        """The inverse of `pack`."""
        return packed.reshape(problem.inputs[index].shape)


class OnePipeline(Kernel[OpT, S]):
    """The kernels of an op that one call computes."""

    @abstractmethod
    def build(self, problem: Problem[OpT], schedule: S, cpu: Cpu) -> Pipeline:
        """The algorithm under the schedule."""

    def calls(
        self, problem: Problem[OpT], schedule: S, cpu: Cpu, arrays: Sequence[Array], scratch: Array | None
    ) -> Sequence[Call]:
        code = self.code_problem(problem)
        return (Call("", lambda: self.build(code, schedule, cpu), tuple(arrays)),)


class PlainKernel(OnePipeline[OpT, Schedule]):
    """The kernel of an op that leaves no choice: one schedule."""

    def schedules(self, problem: Problem[OpT], cpu: Cpu) -> Sequence[Schedule]:
        return (Schedule(),)


def whole_input(name: str, shape: Shape, type_: TensorType | None = None) -> Source:
    """An input of this row-major shape, with all extents and strides known when compiling.

    Halide's dimension 0 is the last axis. `type_` is that of a value that may lie within a wider one, and says its
    format; it is float32 without.
    """
    source = Source(name, len(shape), type_.format if type_ else FLOAT32)
    _fix_layout(source.param, shape, type_)
    return source


def fix_output(func: hl.Func, shape: Shape, type_: TensorType | None = None) -> None:
    """Tell Halide the row-major shape of the output, as in `whole_input`."""
    _fix_layout(func.output_buffer(), shape, type_)


def _fix_layout(param: hl.ImageParam | hl.OutputImageParam, shape: Shape, type_: TensorType | None) -> None:
    strides = strides_of(shape, type_) if type_ else None
    if strides is None:
        # A value within a wider one begins at any of its channels.
        param.set_host_alignment(64)
    _fix_strides(param, shape, strides or row_major_strides(shape))


def part_input(name: str, array: Array, format_: NumberFormat) -> Source:
    """An input of the shape and strides of `array`, a part of a larger one that need not be aligned."""
    source = Source(name, array.ndim, format_)
    _fix_strides(source.param, array.shape, _strides(array))
    return source


def fix_part_output(func: hl.Func, array: Array) -> None:
    """Tell Halide the shape and strides of the output, a part of a larger array that need not be aligned."""
    _fix_strides(func.output_buffer(), array.shape, _strides(array))


def _strides(array: Array) -> list[int]:
    return [stride // array.itemsize for stride in array.strides]


def _fix_strides(param: hl.ImageParam | hl.OutputImageParam, shape: Shape, strides: Sequence[int]) -> None:
    for dimension, (size, stride) in enumerate(zip(reversed(shape), reversed(strides), strict=True)):
        param.dim(dimension).set_bounds(0, size)
        # The stride of a single element is arbitrary, and numpy and Halide choose differently.
        if size > 1:
            param.dim(dimension).set_stride(stride)


def around_axis(shape: Shape, axis: int) -> Shape:
    """`shape` as (outer, size of the axis, inner)."""
    outer, inner = 1, 1
    for size in shape[:axis]:
        outer *= size
    for size in shape[axis + 1 :]:
        inner *= size
    return outer, shape[axis], inner
