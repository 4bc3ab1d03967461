"""Register tiles of signs: what a lane counts, and which tiles there are; see sign_products.py.

Signs lie 32 to a word. Where the CPU counts the bits of 32-bit words in vectors (AVX-512 VPOPCNTDQ) a lane is a word
of one output; elsewhere (AVX2, by two table look-ups of half bytes; Arm's cnt) a lane is a byte of one output, whose
counts are added up in bytes for as long as they fit, and then in 16 or 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.parts.tile import TileSchedule, bands_of
from netopt.numerics import SIGN_BITS, SIGNS, NumberFormat


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

    def steps(self, channels: int) -> int:
        """Units of the words that hold so many signs."""
        return -(-channels // 32) * 32 // self.bits

    @property
    def format(self) -> NumberFormat:
        return SIGNS if self.bits == 32 else SIGN_BITS

    def view(self, words: Array) -> Array:
        """An array of words, (..., words), as one of units."""
        return words.view(self.dtype)


# --- schedules


def sign_tile_cost(rows: int, outputs: int, tile: tuple[int, int], cpu: Cpu) -> float:
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
    return sorted(choices, key=lambda tile: (sign_tile_cost(rows, outputs, tile, cpu), tile))
