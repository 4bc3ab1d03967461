"""Dense layers with weights of one bit: on packed signs, or on floating numbers.

On signs: register tiles of rows x outputs of products as in binary_tile.py.

On floating numbers, up to four rows: a vector of words holds the weights of 32 inputs for as many outputs as it has
lanes. Each input is added with its sign flipped by the weight's bit. More rows: the kernel of dense.py, with weights as
floats.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import halide as hl
import numpy as np

from netopt.kernels.dense import DenseKernel, build_dense
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array, Source, storage_type
from netopt.kernels.machine.kernel import Call, Kernel, Pipeline, Problem, fix_output, float_input, part_input
from netopt.kernels.parts.binary_tile import ByteSum, Unit, Word, binary_sum, fits, pack_panels, tiles, unpack_panels
from netopt.kernels.parts.epilogue import finish
from netopt.kernels.parts.tile import Band, TileSchedule, TileSum, bands_of, share_tiles
from netopt.numerics import FLOAT32, SIGNS, Shape
from netopt.ops import BinaryDense, Dense

# Rows from which on floats are multiplied by floats.
_MANY_ROWS = 5
# Below every sum, and far enough above the smallest int32 that their difference is one, too.
_LOWEST = -(2**30)
_ON_FLOATS = DenseKernel()


@dataclass(frozen=True)
class _Size:
    """The matrix product: (rows, inputs) by (inputs, outputs)."""

    rows: int
    inputs: int
    outputs: int
    unit: Unit

    @classmethod
    def of(cls, problem: Problem, cpu: Cpu) -> _Size:
        outputs, inputs = problem.inputs[1].shape
        unit = Unit.of(cpu) if _reads_signs(problem) else Unit(32, cpu.lanes)
        return cls(problem.output.elements // outputs, inputs, outputs, unit)

    @property
    def words(self) -> int:
        return -(-self.inputs // 32)

    def padded(self, schedule: TileSchedule) -> int:
        """Outputs, with those that fill the last tile."""
        tile = schedule.vectors * self.unit.lanes
        return -(-self.outputs // tile) * tile

    def weight_shape(self, schedule: TileSchedule) -> Shape:
        panel = schedule.panel * self.unit.lanes
        return (self.padded(schedule) // panel, self.unit.steps(self.inputs), panel)


class BinaryDenseKernel(Kernel[TileSchedule]):
    """See the module."""

    op = BinaryDense

    def schedules(self, problem: Problem, cpu: Cpu) -> Sequence[TileSchedule]:
        if _multiplies(problem):
            return _ON_FLOATS.schedules(_float_problem(problem), cpu)
        size, whole = _Size.of(problem, cpu), _op(problem).has_threshold
        if not _reads_signs(problem) or size.rows == 1:
            return _of_few_rows(size, cpu, whole_words=whole)
        return [
            TileSchedule(rows, vectors, panel)
            for rows, vectors in tiles(size.rows, size.outputs, cpu, whole_words=whole)[:4]
            for panel in dict.fromkeys((vectors, 1))
        ]

    def argument_shapes(self, problem: Problem, schedule: TileSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        op, size = _op(problem), _Size.of(problem, cpu)
        if _multiplies(problem):
            x, weight, *rest = _ON_FLOATS.argument_shapes(_float_problem(problem), schedule, cpu)
            tile = schedule.vectors * cpu.lanes
            scale = [(-(-size.outputs // tile) * tile,)] if op.has_scale else []
            return (x, (4 * math.prod(weight),), *scale, *rest)
        x = (size.rows, size.words if _reads_signs(problem) else size.inputs)
        weight = (math.prod(size.weight_shape(schedule)) * size.unit.bits // 8,)
        vectors = [(size.padded(schedule),)] * (op.has_threshold + op.has_scale + op.has_bias)
        residual = [(size.rows, size.outputs)] if op.has_residual else []
        outputs = -(-size.outputs // 32) if op.has_threshold else size.outputs
        return (x, weight, *vectors, *residual, (size.rows, outputs))

    def pack(self, problem: Problem, schedule: TileSchedule, cpu: Cpu, index: int, value: Array) -> Array:
        size = _Size.of(problem, cpu)
        if index == 1 and _multiplies(problem):
            floats = value.astype(np.float32)
            return _ON_FLOATS.pack(_float_problem(problem), schedule, cpu, 1, floats).reshape(-1).view(np.uint8)
        if index == 1:
            panel = schedule.panel * size.unit.lanes
            return pack_panels(value[None], panel, size.padded(schedule), size.unit).reshape(-1).view(np.uint8)
        if value.ndim != 1:
            return value.reshape(size.rows, size.outputs)
        (length,) = self.argument_shapes(problem, schedule, cpu)[index]
        fill = _LOWEST if _op(problem).has_threshold else 0
        return np.pad(value, (0, length - len(value)), constant_values=fill)

    def unpack(self, problem: Problem, schedule: TileSchedule, cpu: Cpu, index: int, packed: Array) -> Array:
        size, shape = _Size.of(problem, cpu), problem.inputs[index].shape
        if index != 1:
            return np.ascontiguousarray(packed[: shape[0]]) if packed.ndim == 1 else packed.reshape(shape)
        if _multiplies(problem):
            plain = _float_problem(problem)
            floats = packed.view(np.float32).reshape(_ON_FLOATS.argument_shapes(plain, schedule, cpu)[1])
            return _ON_FLOATS.unpack(plain, schedule, cpu, 1, floats).astype(np.int8)
        panels = packed.view(size.unit.dtype).reshape(1, *size.weight_shape(schedule))
        return np.ascontiguousarray(unpack_panels(panels, size.outputs, size.inputs)).reshape(shape)

    def packing(self, problem: Problem, schedule: TileSchedule) -> tuple[int, ...]:
        return (schedule.panel, schedule.vectors, _reads_signs(problem), _multiplies(problem))

    def calls(
        self, problem: Problem, schedule: TileSchedule, cpu: Cpu, arrays: Sequence[Array], scratch: Array | None
    ) -> Sequence[Call]:
        size = _Size.of(problem, cpu)
        x, weight, *rest = arrays
        if _multiplies(problem):
            plain = _ON_FLOATS.argument_shapes(_float_problem(problem), schedule, cpu)[1]
            seen = (x, weight.view(np.float32).reshape(plain), *rest)
        else:
            x = size.unit.view(x) if _reads_signs(problem) else x
            seen = (x, weight.view(size.unit.dtype).reshape(size.weight_shape(schedule)), *rest)
        return (Call("", lambda: _pipeline(problem, size, schedule, cpu, seen), seen),)


def _op(problem: Problem) -> BinaryDense:
    assert isinstance(problem.op, BinaryDense)
    return problem.op


def _reads_signs(problem: Problem) -> bool:
    return _op(problem).reads_signs(problem.inputs)


def _multiplies(problem: Problem) -> bool:
    """Whether floats are multiplied by floats."""
    outputs = problem.inputs[1].shape[0]
    return not _reads_signs(problem) and problem.output.elements >= _MANY_ROWS * outputs


def _float_problem(problem: Problem) -> Problem:
    """The layer without its scale, with floats for weights."""
    op = _op(problem)
    x, weight, *rest = problem.inputs
    inputs = (x, dataclasses.replace(weight, format=FLOAT32), *rest[op.has_scale :])
    return Problem(Dense(op.has_bias, op.has_residual, op.activation), inputs, problem.output, problem.threads)


def _of_few_rows(size: _Size, cpu: Cpu, *, whole_words: bool) -> list[TileSchedule]:
    """Tiles bound by bytes: all rows, and the more vectors of outputs the better; in one stream of bytes or several."""
    step = max(1, 32 // size.unit.lanes) if whole_words else 1
    widest = -(-size.outputs // (size.unit.lanes * step)) * step
    choices = [v for v in (8, 12, 16, 6, 4, 2, 1) if v <= max(widest, step) and v % step == 0]
    table = [v for v in choices if size.rows == 1 or fits(size.rows, v, cpu)] or [step]
    return [TileSchedule(size.rows, v, panel) for v in table[:3] for panel in dict.fromkeys((1, v))]


def _pipeline(problem: Problem, size: _Size, schedule: TileSchedule, cpu: Cpu, arrays: Sequence[Array]) -> Pipeline:
    op = _op(problem)
    names = ["x", "weight", *["threshold"] * op.has_threshold, *["scale"] * op.has_scale]
    names += [*["bias"] * op.has_bias, *["residual"] * op.has_residual]
    inputs = {}
    packed = {"x": size.unit.format, "weight": FLOAT32 if _multiplies(problem) else size.unit.format}
    for name, array, type_ in zip(names, arrays, problem.inputs, strict=False):
        floating = type_.format not in (SIGNS,) and name in ("x", "residual")
        format_ = packed.get(name, type_.format)
        inputs[name] = float_input(name, array.shape, type_) if floating else part_input(name, array, format_)
        inputs[name].param.set_host_alignment(64)
    if _multiplies(problem):
        out = build_dense(inputs, _float_problem(problem), schedule, cpu)
    else:
        out = _build(inputs, problem, size, schedule, cpu)
    fix_output(out, arrays[-1].shape, None if op.has_threshold else problem.output)
    return Pipeline(out, tuple(inputs.values()))


def _build(inputs: dict[str, Source], problem: Problem, size: _Size, schedule: TileSchedule, cpu: Cpu) -> hl.Func:
    op, tile = _op(problem), schedule.vectors * size.unit.lanes
    n, out = hl.Var("n"), hl.Func("out")
    out[n, hl.Var("m")] = hl.undef(hl.UInt(32) if op.has_threshold else storage_type(problem.output.format))
    for number, band in enumerate(bands_of(size.rows, schedule)):
        # --- algorithm
        m = hl.RDom([(band.start, band.rows)], f"band{number}").x
        sums, total = _sum(f"_{number}", inputs, problem, size, schedule, cpu)
        word = None
        if op.has_threshold:
            row = hl.Var("row")
            word = Word(f"word_{number}", partial(_above, total, inputs["threshold"], row), [row], cpu.lanes)
            out[n, m] = word.func[n, m]
        else:
            out[n, m] = finish(
                hl.f32(total(n, m)),
                op.activation,
                problem.output.format,
                scale=inputs["scale"][n] if op.has_scale else None,
                bias=inputs["bias"][n] if op.has_bias else None,
                residual=inputs["residual"][n, m] if op.has_residual else None,
            )
        # --- schedule
        n_out, n_in = hl.Var("n_out"), hl.Var("n_in")
        m_out, m_in = hl.RVar("m_out"), hl.RVar("m_in")
        stage = out.update(number)
        across = tile if word is None else tile // 32
        stage.split(n, n_out, n_in, across, hl.TailStrategy.GuardWithIf).split(m, m_out, m_in, band.block)
        stage.reorder(n_in, m_in, m_out, n_out).unroll(m_in)
        share_tiles(
            stage, n_out, -(-size.outputs // tile), band.rows * size.inputs * size.outputs // 8, problem.threads
        )
        sums.schedule(out, m_out, band)
        if word is None:
            stage.vectorize(n_in, cpu.lanes)
        else:
            stage.unroll(n_in)
            word.schedule(out, m_out)
    return out


def _sum(
    suffix: str, inputs: dict[str, Source], problem: Problem, size: _Size, schedule: TileSchedule, cpu: Cpu
) -> tuple[TileSum | ByteSum | _FlipSum, Callable[[hl.Expr, hl.Expr], hl.Expr]]:
    """The sums of a tile, to be scheduled; and the sum of an output and a row."""
    weight, x = inputs["weight"], inputs["x"]
    if not _reads_signs(problem):
        flips = _FlipSum(suffix, weight, x, size, schedule)
        return flips, lambda n, m: flips.total[n, m]
    panel = schedule.panel * size.unit.lanes

    def term(n: hl.Var, m: hl.Var, _: Sequence[hl.Var], k: Sequence[hl.Expr]) -> hl.Expr:
        return hl.popcount(weight[n % panel, k[0], n // panel] ^ x[k[0], m])

    counts = binary_sum(suffix, [], [size.unit.steps(size.inputs)], schedule, cpu, term)
    return counts, lambda n, m: size.inputs - 2 * hl.i32(counts.total[n, m])


def _above(total: Callable[[hl.Expr, hl.Expr], hl.Expr], threshold: Source, row: hl.Var, n: hl.Expr) -> hl.Expr:
    """Negative where a sum is below its threshold."""
    return total(n, row) - threshold[n]


# --- bits on floating numbers


class _FlipSum:
    """total[n, m]: the sum of all inputs, each with its sign flipped where the weight's bit is set."""

    def __init__(self, suffix: str, weight: Source, x: Source, size: _Size, s: TileSchedule) -> None:
        # --- algorithm
        self.s, self.lanes, panel = s, size.unit.lanes, s.panel * size.unit.lanes
        n, m = self.n, self.m = hl.Var("n"), hl.Var("m")
        self.total = hl.Func(f"total{suffix}")
        self.total[n, m] = hl.f32(0.0)
        self.parts: list[tuple[hl.Func, hl.RVar, hl.RVar]] = []
        whole, rest = divmod(size.inputs, 32)
        for start, words, bits in ((0, whole, 32), (whole, 1, rest)):
            if not words or not bits:
                continue
            part, k = hl.Func(f"part{suffix}_{start}"), hl.Var("k")
            bit, word = (
                hl.RDom([(0, bits)], f"bit{suffix}_{start}").x,
                hl.RDom([(start, words)], f"word{suffix}_{start}").x,
            )
            part[n, m, k] = (hl.f32(0.0), weight[n % panel, k, n // panel] << hl.u32(32 - bits))
            number = hl.reinterpret(hl.UInt(32), x[k * 32 + (bits - 1 - bit), m])
            acc, state = part[n, m, k][0], part[n, m, k][1]
            flipped = hl.reinterpret(hl.Float(32), number ^ (state & hl.u32(0x80000000)))
            part[n, m, k] = (acc + flipped, state + state)
            self.total[n, m] += part[n, m, word][0]
            self.parts.append((part, bit, word))

    def schedule(self, consumer: hl.Func, rows: hl.RVar, band: Band) -> None:
        """Compute for each turn of the consumer's loop over `rows`."""
        # --- schedule
        n, m, tile = self.n, self.m, self.s.vectors * self.lanes
        self.total.compute_at(consumer, rows).bound_extent(n, tile).align_bounds(n, tile)
        self.total.store_in(hl.MemoryType.Stack).vectorize(n, self.lanes).unroll(n).unroll(m)
        for number, (part, bit, word) in enumerate(self.parts):
            update = self.total.update(number).reorder(n, m, word)
            update.vectorize(n, self.lanes).unroll(n).unroll(m)
            part.compute_at(self.total, word).bound_extent(n, tile).store_in(hl.MemoryType.Stack)
            part.vectorize(n, self.lanes).unroll(n).unroll(m)
            part.update().reorder(n, m, bit).vectorize(n, self.lanes).unroll(n).unroll(m)
