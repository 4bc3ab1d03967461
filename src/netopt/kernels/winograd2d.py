"""3 x 3 convolutions by Winograd's minimal filtering, block by block of tiles, in three calls a block.

    transform   x -> V (points x points, tiles, inputs): B^T d B of each tile, vectors along the channels
    product     M = V U: points x points matrix products, in register tiles as the dense layer's
    epilogue    M -> y: A^T M A of each tile, with bias, residual and activation

V and M of a block are the op's scratch memory; they are meant to stay in the second-level cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Call, Kernel, Problem
from netopt.kernels.parts.panels import pack_panels, unpack_panels
from netopt.kernels.parts.spatial import channels_last
from netopt.kernels.parts.tile import TileSchedule, tile_schedules
from netopt.kernels.parts.winograd_steps import epilogue, product, transform, zeros_around
from netopt.numerics import Shape
from netopt.ops import TensorType, Winograd2d
from netopt.ops.spatial import Sides
from netopt.ops.winograd2d import Tiling


@dataclass(frozen=True)
class _Block:
    """Images `image` .. `image + images`, and in them rows of tiles `row` .. `row + rows`."""

    image: int
    images: int
    row: int
    rows: int


def _blocks(tiling: Tiling, batch: int) -> list[_Block]:
    return [
        _Block(image, min(tiling.block_images, batch - image), row, min(tiling.block_rows, tiling.rows - row))
        for image in range(0, batch, tiling.block_images)
        for row in range(0, tiling.rows, tiling.block_rows)
    ]


class Winograd2dKernel(Kernel[Winograd2d, TileSchedule]):
    """See the module."""

    op = Winograd2d

    def schedules(self, problem: Problem[Winograd2d], cpu: Cpu) -> Sequence[TileSchedule]:
        return tile_schedules(_tiling(problem).tiles, problem.output.shape[1], cpu)

    def argument_shapes(self, problem: Problem[Winograd2d], schedule: TileSchedule, cpu: Cpu) -> tuple[Shape, ...]:
        op = problem.op
        outputs, inputs = problem.inputs[1].shape[:2]
        tile, panel = schedule.vectors * cpu.lanes, schedule.panel * cpu.lanes
        weight = (op.points**2, -(-outputs // tile) * tile // panel, inputs, panel)
        bias = [(outputs,)] if op.has_bias else []
        residual = [_physical(problem.inputs[op.residual_index])] if op.has_residual else []
        return (_physical(problem.inputs[0]), weight, *bias, *residual, _physical(problem.output))

    def pack(self, problem: Problem[Winograd2d], schedule: TileSchedule, cpu: Cpu, index: int, value: Array) -> Array:
        if index != 1:
            return value
        points, panels, inputs, panel = self.argument_shapes(problem, schedule, cpu)[1]
        by_point = value.transpose(2, 3, 0, 1).reshape(points, value.shape[0], inputs)
        return pack_panels(by_point, panel, panels * panel)

    def unpack(
        self, problem: Problem[Winograd2d], schedule: TileSchedule, cpu: Cpu, index: int, packed: Array
    ) -> Array:
        if index != 1:
            return packed
        outputs, inputs, height, width = problem.inputs[1].shape
        by_point = unpack_panels(packed, outputs, inputs)
        return np.ascontiguousarray(by_point.reshape(height, width, outputs, inputs).transpose(2, 3, 0, 1))

    def calls(
        self,
        problem: Problem[Winograd2d],
        schedule: TileSchedule,
        cpu: Cpu,
        arrays: Sequence[Array],
        scratch: Array | None,
    ) -> Sequence[Call]:
        assert scratch is not None
        y, halo = arrays[-1], channels_last(problem.output).halo
        result = [Call("halo", partial(zeros_around, y, problem.output.format, halo, cpu), (y,))] if any(halo) else []
        for block in _blocks(_tiling(problem), y.shape[0]):
            result += self._block(problem, schedule, cpu, arrays, scratch, block)
        return result

    def _block(
        self,
        problem: Problem[Winograd2d],
        schedule: TileSchedule,
        cpu: Cpu,
        arrays: Sequence[Array],
        scratch: Array,
        block: _Block,
    ) -> list[Call]:
        op, threads = problem.op, problem.threads
        outputs, inputs = problem.inputs[1].shape[:2]
        tiles = (block.images, block.rows, _tiling(problem).columns)
        count, points = int(np.prod(tiles)), op.points
        v = scratch[: points**2 * count * inputs]
        m = scratch[v.size : v.size + points**2 * count * outputs]
        source = _read_by(arrays[0], problem, block)
        target = _written_by(arrays[-1], problem.output, op, block)
        bias = arrays[2] if op.has_bias else None
        residual = None
        if op.has_residual:
            place = op.residual_index
            residual = _written_by(arrays[place], problem.inputs[place], op, block)
        matrices = (v.reshape(points**2, count, inputs), arrays[1], m.reshape(points**2, count, outputs))
        grid = v.reshape(points, points, *tiles, inputs)
        products = m.reshape(points, points, *tiles, outputs)
        types, format_ = (*problem.inputs, problem.output), problem.inputs[0].format
        finished = tuple(array for array in (products, bias, residual, target) if array is not None)
        key = f"of {block.images} x {target.shape[1]} rows"
        return [
            Call(f"transform {key}", partial(transform, op, source, format_, grid, cpu, threads), (source, grid)),
            Call(f"product {key}", partial(product, *matrices, schedule, cpu, threads), matrices),
            Call(
                f"epilogue {key}",
                partial(epilogue, op, types, products, bias, residual, target, cpu, threads),
                finished,
            ),
        ]


def _tiling(problem: Problem[Winograd2d]) -> Tiling:
    return problem.op.tiling(problem.inputs[0].shape, problem.output.shape[1])


def _physical(type_: TensorType) -> Shape:
    return channels_last(type_).physical(type_.shape)


def _read_by(x: Array, problem: Problem[Winograd2d], block: _Block) -> Array:
    """The part of the input in memory that the tiles of a block are cut from."""
    op, tiling = problem.op, _tiling(problem)
    halo, padding = channels_last(problem.inputs[0]).halo, op.padding
    top, left = halo[0] - padding[0] + block.row * op.tile, halo[2] - padding[2]
    rows, columns = block.rows * op.tile + 2, tiling.columns * op.tile + 2
    return x[block.image : block.image + block.images, top : top + rows, left : left + columns]


def _written_by(y: Array, type_: TensorType, op: Winograd2d, block: _Block) -> Array:
    """The outputs of a block's tiles, or the residual beside them; the last tiles may reach beyond the image."""
    halo: Sides = channels_last(type_).halo
    _, _, height, width = type_.shape
    top = block.row * op.tile
    bottom = min(height, top + block.rows * op.tile)
    images = y[block.image : block.image + block.images]
    return images[:, halo[0] + top : halo[0] + bottom, halo[2] : halo[2] + width]
