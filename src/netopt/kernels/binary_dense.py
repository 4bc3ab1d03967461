"""Dense layers with weights of one bit: on packed signs, or on floating numbers.

On signs: register tiles of rows x outputs of products as in sign_products.py.

On floating numbers, up to four rows: a vector of words holds the weights of 32 inputs for as many outputs as it has
lanes. Each input is added with its sign flipped by the weight's bit. More rows: as in dense.py, with weights as floats.
"""

from __future__ import annotations

from collections.abc import Sequence

from netopt.kernels.dense import dense_schedules
from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.product import Product, SignsAsFloats
from netopt.kernels.parts.sign_products import SignCounts, SignFlips
from netopt.kernels.parts.sign_tile import fits, tiles
from netopt.kernels.parts.tile import TileSchedule
from netopt.kernels.parts.tiled import TiledKernel
from netopt.kernels.parts.tiled_dense import TiledDense
from netopt.ops import BinaryDense

# Rows from which on floats are multiplied by floats.
_MANY_ROWS = 5


class BinaryDenseKernel(TiledKernel[BinaryDense, TileSchedule]):
    """See the module."""

    op = BinaryDense

    def tiled(self, problem: Problem[BinaryDense], cpu: Cpu) -> TiledDense:
        product: Product = SignFlips(cpu.lanes)
        if problem.op.reads_signs(problem.inputs):
            product = SignCounts.of(cpu)
        elif _multiplies(problem):
            product = SignsAsFloats(cpu.lanes)
        return TiledDense(problem, product)

    def schedules(self, problem: Problem[BinaryDense], cpu: Cpu) -> Sequence[TileSchedule]:
        size, whole = self.tiled(problem, cpu), problem.op.has_threshold
        if _multiplies(problem):
            return dense_schedules(size, cpu)
        if not problem.op.reads_signs(problem.inputs) or size.rows == 1:
            return _of_few_rows(size, cpu, whole_words=whole)
        return [
            TileSchedule(rows, vectors, panel)
            for rows, vectors in tiles(size.rows, size.outputs, cpu, whole_words=whole)[:4]
            for panel in dict.fromkeys((vectors, 1))
        ]

    def packing(self, problem: Problem[BinaryDense], schedule: TileSchedule) -> tuple[int, ...]:
        return (schedule.panel, schedule.vectors, problem.op.reads_signs(problem.inputs), _multiplies(problem))


def _multiplies(problem: Problem[BinaryDense]) -> bool:
    """Whether floats are multiplied by floats."""
    outputs = problem.inputs[1].shape[0]
    return not problem.op.reads_signs(problem.inputs) and problem.output.elements >= _MANY_ROWS * outputs


def _of_few_rows(size: TiledDense, cpu: Cpu, *, whole_words: bool) -> list[TileSchedule]:
    """Tiles bound by bytes: all rows, and the more vectors of outputs the better; in one stream of bytes or several."""
    step = max(1, 32 // size.product.lanes) if whole_words else 1
    widest = -(-size.outputs // (size.product.lanes * step)) * step
    choices = [v for v in (8, 12, 16, 6, 4, 2, 1) if v <= max(widest, step) and v % step == 0]
    table = [v for v in choices if size.rows == 1 or fits(size.rows, v, cpu)] or [step]
    return [TileSchedule(size.rows, v, panel) for v in table[:3] for panel in dict.fromkeys((1, v))]
