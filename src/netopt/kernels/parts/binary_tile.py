"""Products of signs: exclusive or, count of bits, addition, in register tiles of positions x vectors of outputs.

Signs lie 32 to a word. Where the CPU counts the bits of 32-bit words in vectors (AVX-512 VPOPCNTDQ) a lane is a word
of one output; elsewhere (AVX2, by two table look-ups of half bytes; Arm's cnt) a lane is a byte of one output, whose
counts are added up in bytes for as long as they fit, and then in 16 or 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import halide as hl
import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.parts.tile import Band, TileSchedule, TileSum, bands_of
from netopt.numerics import ALIGNMENT, SIGN_BITS, SIGNS, NumberFormat, pack_signs, unpack_signs

# Counts of 8 that fit into a byte.
_BYTES_IN_A_BYTE = 31


@dataclass(frozen=True)
class Unit:
    """What a lane counts at once.

    Attributes:
        bits: 32 or 8.
        lanes: outputs in a vector.
    """

    bits: int
    lanes: int

    @classmethod
    def of(cls, cpu: Cpu) -> Unit:
        """The unit that suits a CPU."""
        return cls(32, cpu.lanes) if cpu.has_popcount else cls(8, 4 * cpu.lanes)

    @property
    def dtype(self) -> type[np.generic]:
        return np.uint32 if self.bits == 32 else np.uint8

    @property
    def format(self) -> NumberFormat:
        """Signs as a kernel reads them in these units: words, or bytes."""
        return SIGNS if self.bits == 32 else SIGN_BITS

    def steps(self, channels: int) -> int:
        """Units of the words that hold so many signs."""
        return -(-channels // 32) * 32 // self.bits

    def view(self, words: Array) -> Array:
        """An array of words, (..., words), as one of units."""
        return words.view(self.dtype)


# --- packed weights


def pack_panels(weight: Array, panel: int, outputs: int, unit: Unit) -> Array:
    """Signs (groups, out, ..., in), as int8, in panels (groups, outputs / panel, ..., steps, panel) of units.

    `outputs` is the number of outputs with padding, whose bits are 0, as those behind the last input.
    """
    packed = pack_signs(weight).view(unit.dtype)
    groups, out, *middle, steps = packed.shape
    padded = np.pad(packed, [(0, 0), (0, outputs - out)] + [(0, 0)] * (len(middle) + 1))
    split = padded.reshape(groups, outputs // panel, panel, *middle, steps)
    return np.ascontiguousarray(np.moveaxis(split, 2, -1))


def unpack_panels(packed: Array, out: int, channels: int) -> Array:
    """The inverse of `pack_panels`: int8 (groups, out, ..., in)."""
    groups, panels, *middle, _, panel = packed.shape
    by_output = np.moveaxis(packed, -1, 2)
    rows = np.ascontiguousarray(by_output).reshape(groups, panels * panel, *middle, -1)[:, :out]
    return unpack_signs(np.ascontiguousarray(rows).view(np.uint8), channels)


def join(parts: Sequence[Array]) -> Array:
    """Arrays one after the other as bytes, each at a multiple of 64; `part_of` gives one back."""
    joined = []
    for part in parts:
        data = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
        joined.append(np.pad(data, (0, -data.size % ALIGNMENT)))
    return np.concatenate(joined)


def joined_bytes(*parts: tuple[tuple[int, ...], type[np.generic]]) -> int:
    """Bytes of `join` of arrays of these shapes and types."""
    sizes = (math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in parts)
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)


def parts_of(joined: Array, *parts: tuple[tuple[int, ...], type[np.generic]]) -> list[Array]:
    """The arrays that were joined, as views."""
    result, start = [], 0
    for shape, dtype in parts:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        result.append(joined[start : start + size].view(dtype).reshape(shape))
        start += -(-size // ALIGNMENT) * ALIGNMENT
    return result


# --- schedules


def tile_cost(rows: int, outputs: int, tile: tuple[int, int], cpu: Cpu) -> float:
    """Relative cost of a register tile (rows, vectors) for one line of positions."""
    height, vectors = tile
    unit = Unit.of(cpu)
    across = -(-outputs // (vectors * unit.lanes))
    bands = bands_of(rows, TileSchedule(height, vectors, 1))
    return across * sum(band.rows // band.tile * _cycles(band.tile, vectors, unit) for band in bands)


def _cycles(height: int, vectors: int, unit: Unit) -> float:
    """Cycles for one step of a tile: three instructions a vector, or eight, beside the loads."""
    instructions = 3 if unit.bits == 32 else 8
    return max(height * vectors * instructions / 4, (height + vectors) / 2, 3.0) + vectors / 4 + height / 8


def fits(height: int, vectors: int, cpu: Cpu) -> bool:
    """Whether the counts of a tile, a vector of weights each and what counting takes fit into the registers."""
    spare = 2 if cpu.has_popcount else 5
    return height * vectors + vectors + spare <= cpu.registers


def tiles(rows: int, outputs: int, cpu: Cpu, *, whole_words: bool) -> list[tuple[int, int]]:
    """Register tiles (rows, vectors), the most promising first; with `whole_words` of whole words of 32 outputs."""
    unit = Unit.of(cpu)
    step = max(1, 32 // unit.lanes) if whole_words else 1
    widest = -(-outputs // (unit.lanes * step)) * step
    choices = [
        (height, vectors)
        for vectors in range(step, min(6, widest) + 1, step)
        for height in range(1, rows + 1)
        if fits(height, vectors, cpu)
    ] or [(1, step)]
    return sorted(choices, key=lambda tile: (tile_cost(rows, outputs, tile, cpu), tile))


# --- sums


class ByteSum:
    """As `TileSum`, of counts in bytes: `part` adds up what fits into bytes, `total` the parts, in 16 or 32 bits."""

    def __init__(
        self,
        suffix: str,
        others: Sequence[hl.Var],
        extents: Sequence[int],
        s: TileSchedule,
        lanes: int,
        term: Callable[..., hl.Expr],
    ) -> None:
        """Define the sum; see `TileSum`. Each term is an unsigned byte, at most 8."""
        # --- algorithm
        steps, *windows = extents
        run = _run(steps)
        # Whole rows of a window at a time, if they fit.
        across = windows[0] if windows and run == steps and steps * windows[0] <= _BYTES_IN_A_BYTE else 1
        wide = hl.UInt(16) if 8 * math.prod(extents) < 2**16 else hl.UInt(32)
        self.s, self.lanes = s, lanes
        n, m = self.n, self.m = hl.Var("n"), hl.Var("m")
        chunk, place = hl.Var("chunk"), [hl.Var(f"place{i}") for i in range(len(windows))]
        inner = hl.RDom([(0, run), (0, across)], f"k{suffix}")
        outer = hl.RDom([(0, steps // run), *((0, w if across == 1 or i else 1) for i, w in enumerate(windows))])
        self.inner = [inner.x, inner.y]
        self.outer = [outer[i] for i in range(1 + len(windows))]
        self.total, self.part = hl.Func(f"total{suffix}"), hl.Func(f"part{suffix}")
        indices: list[hl.Expr] = [chunk * run + inner.x, *place]
        if across > 1:
            indices[1] = hl.Expr(inner.y)
        self.part[[n, m, *others, chunk, *place]] = hl.u8(0)
        self.part[[n, m, *others, chunk, *place]] += term(n, m, others, indices)
        self.total[[n, m, *others]] = hl.cast(wide, 0)
        self.total[[n, m, *others]] += hl.cast(wide, self.part[[n, m, *others, *self.outer]])

    def schedule(self, consumer: hl.Func, rows: hl.RVar, band: Band) -> None:
        """Compute for each turn of the consumer's loop over `rows`."""
        # --- schedule
        n, m, tile = self.n, self.m, self.s.vectors * self.lanes
        self.total.compute_at(consumer, rows).bound_extent(n, tile).align_bounds(n, tile)
        self.total.store_in(hl.MemoryType.Stack).vectorize(n, self.lanes).unroll(n).unroll(m)
        self.total.update().reorder(n, m, *self.outer).vectorize(n, self.lanes).unroll(n).unroll(m)
        self.part.compute_at(self.total, self.outer[0]).bound_extent(n, tile).vectorize(n, self.lanes)
        self.part.store_in(hl.MemoryType.Stack).unroll(n).unroll(m)
        update = self.part.update().reorder(n, m, *self.inner).vectorize(n, self.lanes)
        update.unroll(n).unroll(m)


def _run(steps: int) -> int:
    """The most bytes that are a whole part of `steps`, and whose counts fit into a byte."""
    return next(run for run in range(min(steps, _BYTES_IN_A_BYTE), 0, -1) if steps % run == 0)


def binary_sum(
    suffix: str,
    others: Sequence[hl.Var],
    extents: Sequence[int],
    s: TileSchedule,
    cpu: Cpu,
    term: Callable[..., hl.Expr],
) -> TileSum | ByteSum:
    """The counts of a tile; `term` is one count, in the type of the unit."""
    unit = Unit.of(cpu)
    if unit.bits == 8:
        return ByteSum(suffix, others, extents, s, unit.lanes, term)
    return TileSum(suffix, others, extents, s, unit.lanes, lambda *_: hl.u32(0), term)


class Word:
    """func[w, *coordinates]: a word whose bit i is the sign bit of difference(32 w + i), an int32, for i < count.

    A comparison in its place makes Halide 21 crash where it trims loops, and so do serial loops around it.
    """

    def __init__(
        self,
        name: str,
        difference: Callable[[hl.Expr], hl.Expr],
        coordinates: Sequence[hl.Var],
        lanes: int,
        count: int = 32,
    ) -> None:
        """Define the word; the first of the coordinates is that of positions within a register tile."""
        # --- algorithm
        self.w, self.first, self.func = hl.Var("w"), coordinates[0], hl.Func(name)
        bit = hl.RDom([(0, count)], f"{name}_bit").x
        self.func[[self.w, *coordinates]] = hl.u32(0)
        is_negative = hl.cast(hl.UInt(32), difference(self.w * 32 + bit)) >> 31
        self.func[[self.w, *coordinates]] += is_negative << hl.cast(hl.UInt(32), bit)
        # --- schedule
        outside, inside = hl.RVar("bit_outside"), hl.RVar("bit_inside")
        update = self.func.update().split(bit, outside, inside, lanes, hl.TailStrategy.GuardWithIf)
        update.reorder(inside, outside, self.w, *coordinates).atomic().vectorize(inside).unroll(outside)
        self.func.store_in(hl.MemoryType.Stack)

    def schedule(self, consumer: hl.Func, loop: hl.Var | hl.RVar) -> None:
        """Compute for each turn of the consumer's loop, of a whole register tile."""
        for stage in (self.func.compute_at(consumer, loop), self.func.update()):
            stage.unroll(self.w).unroll(self.first)
