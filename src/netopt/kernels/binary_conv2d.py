"""Convolutions with weights of one bit: on packed signs, or on floating numbers.

On signs: register tiles of pixels x output channels, as in conv2d.py, of products as in binary_tile.py. Sums are whole
numbers, exact, with padding by 0, too: see binary_conv2d_size.py.

Seen on one core of an AMD EPYC (Zen 5, AVX-512 VPOPCNTDQ; 145 GMAC/s of float32 at most), GMAC/s at batch 1, to floats;
to packed signs it was 2 to 5 % more; and with code for AVX2 alone:

    input          outputs  rows x vectors: 14 x 2  6 x 4  5 x 4  7 x 2   AVX2: 4 x 2  8 x 1
    64 x 56 x 56   64                       2330    2390                        464    467
    128 x 28 x 28  128                      2340    2500   2540                 475    472
    256 x 14 x 14  256                      2550    2630   2650   2640          467    466
    512 x 7 x 7    512                      2610    2570   2630   2650          474    476

On floating numbers: the kernel of conv2d.py. One bit a weight in files; in memory the weights are floats.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import halide as hl
import numpy as np

from netopt.kernels.conv2d import Conv2dKernel, build_direct
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source, storage_type
from netopt.kernels.machine.kernel import Call, Kernel, Pipeline, Problem, fix_output, float_input, part_input
from netopt.kernels.parts.binary_conv2d_size import BinarySize
from netopt.kernels.parts.binary_tile import Word, binary_sum, join, pack_panels, parts_of, unpack_panels
from netopt.kernels.parts.conv2d_size import Conv2dSchedule, ImageSize, Strip, source_at, strips_of
from netopt.kernels.parts.epilogue import finish
from netopt.kernels.parts.spatial import zero_halo
from netopt.kernels.parts.tile import Band, bands_of, share_evenly
from netopt.numerics import FLOAT32, INT32, NumberFormat, Shape
from netopt.ops import BinaryConv2d, Conv2d

# Below every sum, and far enough above the smallest int32 that their difference is one, too.
LOWEST = -(2**30)


class BinaryConv2dKernel(Kernel[Conv2dSchedule]):
    """See the module."""

    op = BinaryConv2d

    def schedules(self, problem: Problem, cpu: Cpu) -> Sequence[Conv2dSchedule]:
        if not _reads_signs(problem):
            return _ON_FLOATS.schedules(_float_problem(problem), cpu)
        size = BinarySize(problem, cpu)
        best = size.tiles()
        orders = (size.pixels_first, not size.pixels_first)
        return [Conv2dSchedule(rows, vectors, vectors, 1, 1, first) for first in orders for rows, vectors in best[:4]]

    def argument_shapes(self, problem: Problem, schedule: Conv2dSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        op = _op(problem)
        if not _reads_signs(problem):
            x, weight, *rest = _ON_FLOATS.argument_shapes(_float_problem(problem), schedule, cpu)
            scale = [_vector(problem, schedule, cpu)] if op.has_scale else []
            return (x, (4 * math.prod(weight),), *scale, *rest)
        size = BinarySize(problem, cpu)
        shapes: list[Shape] = [size.words(size.source_shape), (size.packed_bytes(schedule),)]
        vectors = op.has_threshold + op.has_scale + op.has_bias
        shapes += [(size.groups, size.padded(schedule))] * vectors
        if op.has_residual:
            shapes.append(size.residual_shape)
        target = size.words(size.target_shape) if op.has_threshold else size.image(size.target_shape)
        return (*shapes, target)

    def pack(self, problem: Problem, schedule: Conv2dSchedule, cpu: Cpu, index: int, value: Array) -> Array:
        op = _op(problem)
        if not _reads_signs(problem):
            if index == 1:
                packed = _ON_FLOATS.pack(_float_problem(problem), schedule, cpu, 1, value.astype(np.float32))
                return packed.reshape(-1).view(np.uint8)
            size = ImageSize(problem)
            return _padded_vector(value, size.groups, _vector(problem, schedule, cpu)[1])
        size = BinarySize(problem, cpu)
        padded = size.padded(schedule)
        if index == 1:
            grouped = value.reshape(size.groups, size.outputs, *value.shape[1:]).transpose(0, 1, 3, 4, 2)
            panels = pack_panels(grouped, schedule.panel * size.unit.lanes, padded, size.unit)
            return join([panels, size.table(grouped, padded)])
        # Behind the last output everything counts as +1, whose bit is 0.
        fill = LOWEST if op.has_threshold else 0
        return _padded_vector(value, size.groups, padded, fill)

    def unpack(self, problem: Problem, schedule: Conv2dSchedule, cpu: Cpu, index: int, packed: Array) -> Array:
        shape = problem.inputs[index].shape
        if index != 1:
            return np.ascontiguousarray(packed[:, : shape[0] // len(packed)]).reshape(shape)
        if not _reads_signs(problem):
            plain = _float_problem(problem)
            floats = packed.view(np.float32).reshape(_ON_FLOATS.argument_shapes(plain, schedule, cpu)[1])
            return _ON_FLOATS.unpack(plain, schedule, cpu, 1, floats).astype(np.int8)
        size = BinarySize(problem, cpu)
        panels, _ = parts_of(packed, *size.parts(schedule))
        grouped = unpack_panels(panels, size.outputs, size.channels)
        return np.ascontiguousarray(grouped.transpose(0, 1, 4, 2, 3)).reshape(shape)

    def packing(self, problem: Problem, schedule: Conv2dSchedule) -> tuple[int, ...]:
        op = _op(problem)
        places = (*problem.inputs[0].shape, *op.stride, *op.padding, *op.dilation, op.pad_one)
        return (schedule.panel, schedule.vectors, _reads_signs(problem), *places)

    def calls(
        self, problem: Problem, schedule: Conv2dSchedule, cpu: Cpu, arrays: Sequence[Array], scratch: Array | None
    ) -> Sequence[Call]:
        if not _reads_signs(problem):
            plain = _ON_FLOATS.argument_shapes(_float_problem(problem), schedule, cpu)[1]
            floats = (arrays[0], arrays[1].view(np.float32).reshape(plain), *arrays[2:])
            return (Call("", lambda: _on_floats(problem, schedule, cpu, floats), floats),)
        size = BinarySize(problem, cpu)
        weight, table = parts_of(arrays[1], *size.parts(schedule))
        seen = (size.unit.view(arrays[0]), weight, table, *arrays[2:])
        return (Call("", lambda: _on_signs(size, schedule, cpu, problem, seen), seen),)


_ON_FLOATS = Conv2dKernel()


def _op(problem: Problem) -> BinaryConv2d:
    assert isinstance(problem.op, BinaryConv2d)
    return problem.op


def _reads_signs(problem: Problem) -> bool:
    return _op(problem).reads_signs(problem.inputs)


def _padded_vector(value: Array, groups: int, padded: int, fill: int = 0) -> Array:
    grouped = value.reshape(groups, -1)
    return np.pad(grouped, [(0, 0), (0, padded - grouped.shape[1])], constant_values=fill)


# --- on floating numbers


def _float_problem(problem: Problem) -> Problem:
    """The convolution without its scale, with floats for weights."""
    op = _op(problem)
    x, weight, *rest = problem.inputs
    plain = Conv2d(op.stride, op.padding, op.dilation, op.groups, op.has_bias, op.has_residual, op.activation)
    inputs = (x, dataclasses.replace(weight, format=FLOAT32), *rest[op.has_scale :])
    return Problem(plain, inputs, problem.output, problem.threads)


def _vector(problem: Problem, schedule: Conv2dSchedule, cpu: Cpu) -> Shape:
    """The shape of a packed scale or bias."""
    size = ImageSize(problem)
    tile = schedule.vectors * cpu.lanes
    return (size.groups, -(-size.outputs // tile) * tile)


def _on_floats(problem: Problem, schedule: Conv2dSchedule, cpu: Cpu, arrays: Sequence[Array]) -> Pipeline:
    op = _op(problem)
    names = ["x", "weight", *["scale"] * op.has_scale, *["bias"] * op.has_bias, *["residual"] * op.has_residual]
    types = [dataclasses.replace(t, format=FLOAT32) if i == 1 else t for i, t in enumerate(problem.inputs)]
    shapes = [array.shape for array in arrays[:-1]]
    inputs = {n: float_input(n, shape, at) for n, shape, at in zip(names, shapes, types, strict=True)}
    out = build_direct(inputs, ImageSize(_float_problem(problem)), schedule, cpu, problem.threads)
    fix_output(out, arrays[-1].shape, problem.output)
    return Pipeline(out, tuple(inputs.values()))


# --- on signs


def _on_signs(
    size: BinarySize, schedule: Conv2dSchedule, cpu: Cpu, problem: Problem, arrays: Sequence[Array]
) -> Pipeline:
    op = size.binary
    names = ["x", "weight", "table", *["threshold"] * op.has_threshold, *["scale"] * op.has_scale]
    names += [*["bias"] * op.has_bias, *["residual"] * op.has_residual]
    formats = [size.unit.format, size.unit.format, INT32, *(type_.format for type_ in problem.inputs[2:])]
    inputs = {name: _input(name, array, kind) for name, array, kind in zip(names, arrays, formats, strict=False)}
    if op.has_residual:
        inputs["residual"] = float_input("residual", arrays[-2].shape, problem.inputs[op.residual_index])
    g, n, out = hl.Var("g"), hl.Var("n"), hl.Func("out")
    c = hl.Var("c")  # channels, or words of 32 of them
    type_ = hl.UInt(32) if op.has_threshold else storage_type(size.format)
    out[c, g, hl.Var("x"), hl.Var("y"), n] = hl.undef(type_)
    parts = [
        (strip, b) for strip in strips_of(size, schedule.rows) for b in bands_of(strip.lines * size.width, schedule)
    ]
    for number, (strip, band) in enumerate(parts):
        _Part(number, strip, band, inputs, size, schedule, cpu).add_to(out, c, g, n, problem.threads)
    shape = size.words(size.target_shape) if op.has_threshold else size.target_shape
    zero_halo(out, [c, g], n, size.target, shape, len(parts), cpu.lanes)
    fix_output(out, arrays[-1].shape, None if op.has_threshold else problem.output)
    return Pipeline(out, tuple(inputs.values()))


def _input(name: str, array: Array, format_: NumberFormat) -> Source:
    source = part_input(name, array, format_)
    source.param.set_host_alignment(64)
    return source


class _Part:
    """Lines of an image that are computed alike, in one band of register tiles: one update of the output."""

    def __init__(
        self,
        number: int,
        strip: Strip,
        band: Band,
        inputs: dict[str, Source],
        size: BinarySize,
        schedule: Conv2dSchedule,
        cpu: Cpu,
    ) -> None:
        # --- algorithm
        self.number, self.strip, self.band, self.inputs, self.size = number, strip, band, inputs, size
        self.s, self.cpu = schedule, cpu
        extents = [size.steps, size.kernel_width, size.kernel_height]
        others = [hl.Var("g"), hl.Var("y"), hl.Var("image")]
        self.counts = binary_sum(f"_{number}", others, extents, schedule, cpu, self._term)
        self.word: Word | None = None
        if size.binary.has_threshold:
            along = [hl.Var("x"), hl.Var("y"), hl.Var("g"), hl.Var("n")]
            self.word = Word(
                f"word_{number}", lambda c: self._sum(c, *along) - inputs["threshold"][c, along[2]], along, cpu.lanes
            )

    def _term(self, c: hl.Var, x: hl.Var, others: Sequence[hl.Var], k: Sequence[hl.Expr]) -> hl.Expr:
        (g, y, n), panel = others, self.s.panel * self.size.unit.lanes
        column, row = source_at(self.size, *self.strip.pixel(x, y), k[1], k[2])
        weight = self.inputs["weight"][c % panel, k[0], k[1], k[2], c // panel, g]
        return hl.popcount(weight ^ self.inputs["x"][k[0], g, column, row, n])

    def _sum(self, c: hl.Expr, x: hl.Expr, y: hl.Expr, g: hl.Expr, n: hl.Expr) -> hl.Expr:
        """The sum of products of signs: what it is if none differs, less 2 for each that does."""
        at = self.size.class_at(*self.strip.pixel(x, y))
        return self.inputs["table"][c, at, g] - 2 * hl.i32(self.counts.total[c, x, g, y, n])

    def _value(self, c: hl.Var, x: hl.RVar, y: hl.RVar, g: hl.Var, n: hl.Var) -> hl.Expr:
        if self.word is not None:
            return self.word.func[c, x, y, g, n]
        inputs, op, residual = self.inputs, self.size.binary, self.size.residual
        column, line = self.strip.pixel(x, y)
        place = [c, g, column + residual[2], line + residual[0], n]
        return finish(
            hl.f32(self._sum(c, x, y, g, n)),
            op.activation,
            self.size.format,
            scale=inputs["scale"][c, g] if op.has_scale else None,
            bias=inputs["bias"][c, g] if op.has_bias else None,
            residual=inputs["residual"][place] if op.has_residual else None,
        )

    def add_to(self, out: hl.Func, c: hl.Var, g: hl.Var, n: hl.Var, threads: int) -> None:
        """Define these lines of the output, and how they are computed."""
        # --- algorithm
        size, band = self.size, self.band
        domain = hl.RDom([(band.start, band.rows), (0, self.strip.count)], f"band{self.number}")
        x, y = domain.x, domain.y
        column, line = self.strip.pixel(x, y)
        out[c, g, column + size.target[2], line + size.target[0], n] = self._value(c, x, y, g, n)
        # --- schedule
        tile = self.s.vectors * size.unit.lanes
        c_out, c_in = hl.Var("c_out"), hl.Var("c_in")
        x_out, x_in = hl.RVar("x_out"), hl.RVar("x_in")
        stage = out.update(self.number)
        across = tile if self.word is None else tile // 32
        stage.split(c, c_out, c_in, across, hl.TailStrategy.GuardWithIf).split(x, x_out, x_in, band.block)
        loops = [c_out, x_out, y, n] if self.s.pixels_first else [x_out, y, n, c_out]
        order = [c_in, x_in, *loops, g]
        stage.reorder(*order).unroll(x_in)
        # A product of words costs about what an eighth of its products of floats would.
        window = size.kernel_height * size.kernel_width
        work = band.rows * self.strip.count * size.batch * size.outputs * size.channels * window // 8
        extents = [(c_out, -(-size.outputs // tile)), (y, self.strip.count), (x_out, band.rows // band.block)]
        share_evenly(stage, extents, order, work, threads)
        self.counts.schedule(out, loops[0], band)
        if self.word is None:
            stage.vectorize(c_in, self.cpu.lanes)
        else:
            stage.unroll(c_in)
            self.word.schedule(out, loops[0])
