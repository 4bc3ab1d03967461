"""The shapes of a convolution as its pipelines see them, and the register tiles that suit them."""

from __future__ import annotations

from dataclasses import dataclass

import halide as hl

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.product import Product
from netopt.kernels.parts.spatial import channels_last
from netopt.kernels.parts.tile import TileSchedule, is_avx512, tile_cost, tile_costs
from netopt.numerics import Shape
from netopt.ops.conv2d import Convolution

# Costs of tiles that differ by less than measurements do.
_AS_GOOD = 1.02


@dataclass(frozen=True)
class Conv2dSchedule(TileSchedule):
    """A register tile over an image: with more rows than a line has pixels it spans several whole lines.

    Attributes:
        pixels_first: the pixels of a tile are computed for all outputs before the next tile of pixels, rather than
            the whole image for the outputs of a tile.
        ahead: the weights are prefetched as many steps along the inputs before their use; 0: not at all.
    """

    pixels_first: bool = False
    ahead: int = 0


@dataclass(frozen=True)
class Strip:
    """Lines of an image that are computed alike: `count` times as many as a register tile spans, from `start` on."""

    start: int
    count: int
    lines: int
    width: int

    def pixel(self, x: hl.Expr, y: hl.Expr) -> tuple[hl.Expr, hl.Expr]:
        """Column and line of pixel `x` of the `y`-th group of lines."""
        if self.lines == 1:
            return x, y + self.start
        return x % self.width, y * self.lines + x // self.width + self.start


class ImageSize:
    """The shapes of one convolution, as the pipeline sees them."""

    def __init__(self, problem: Problem[Convolution], product: Product) -> None:
        op = problem.op
        x, weight = problem.inputs[:2]
        self.op, self.groups = op, op.groups
        self.outputs, self.inputs, *kernel = weight.shape[0] // op.groups, weight.shape[1], *weight.shape[2:]
        self.kernel_height, self.kernel_width = kernel
        self.batch, _, self.height, self.width = problem.output.shape
        layouts = [channels_last(type_) for type_ in (x, problem.output)]
        self.source, self.target = (layout.halo for layout in layouts)
        self.residual = channels_last(problem.inputs[op.residual_index]).halo if op.has_residual else (0, 0, 0, 0)
        self.x_size = x.shape[2:]
        self.source_shape, self.target_shape = (
            layout.physical(type_.shape) for layout, type_ in zip(layouts, (x, problem.output), strict=True)
        )
        # A 1x1 convolution without strides or halos is a matrix product over all pixels of all images.
        plain = kernel == [1, 1] and op.stride == (1, 1) and not any((*self.source, *self.target, *self.residual))
        self.is_matrix_product = plain and not any(op.padding)
        if self.is_matrix_product:
            pixels = self.batch * self.height * self.width
            self.batch, self.height, self.width = 1, 1, pixels
            self.source_shape = (1, 1, pixels, self.source_shape[3])
            self.target_shape = (1, 1, pixels, self.target_shape[3])

        # Terms side by side are multiplied together: those of one pixel, or where they are no multiple of them and the
        # pixels of the window follow each other, those of one row of it.
        self.product, wanted = product, product.neighbours
        follow = op.dilation[1] == 1 and not x.layout.pitch and op.groups == 1
        self.along_rows = follow and self.inputs % wanted != 0 and self.kernel_width > 1
        self.run = self.inputs * (self.kernel_width if self.along_rows else 1)
        self.columns = 1 if self.along_rows else self.kernel_width

    @property
    def window(self) -> int:
        """Elements of the window."""
        return self.kernel_height * self.kernel_width

    def image(self, shape: Shape, channels: int = 1) -> Shape:
        """A shape in memory with the channels as (groups, elements of a group), of so many channels an element."""
        return (*shape[:3], self.groups, -(-shape[3] // self.groups // channels))

    @property
    def residual_image(self) -> Shape:
        """The shape of the residual in memory, without its channels."""
        top, bottom, left, right = self.residual
        return (self.batch, self.height + top + bottom, self.width + left + right)


def strips_of(size: ImageSize, rows: int) -> list[Strip]:
    """Cut an image into parts without remainders, so that each pixel is written once."""
    lines = min(max(1, rows // size.width), size.height)
    count, rest = divmod(size.height, lines)
    strips = [Strip(0, count, lines, size.width), Strip(size.height - rest, 1, rest, size.width)]
    return [strip for strip in strips if strip.lines]


def source_at(size: ImageSize, x: hl.Expr, y: hl.Expr, kx: hl.Expr, ky: hl.Expr) -> tuple[hl.Expr, hl.Expr]:
    """Column and row in memory of the input of the window's element (kx, ky) for the output (x, y).

    The halo may be larger than the padding, where another layer needs more of it.
    """
    op, (top, _, left, _) = size.op, size.source
    column = x * op.stride[1] + kx * op.dilation[1] + (left - op.padding[2])
    row = y * op.stride[0] + ky * op.dilation[0] + (top - op.padding[0])
    return column, row


def tiles_of(size: ImageSize, cpu: Cpu, *, widest_first: bool) -> list[tuple[int, int]]:
    """Register tiles (rows, vectors) of floats, the most promising first; of equals the widest, or the narrowest."""
    by_cost = tile_costs(size.width, size.outputs, cpu)
    if size.product.neighbours > 1:
        # Wider tiles of pairs came out at 70 GMAC/s in some shapes, where these do 220 to 280.
        by_cost = [(tile, cost) for tile, cost in by_cost if tile[1] <= 2]
    costs = {tile: cost * size.height for tile, cost in by_cost[:8]}
    # Lines that are too short for a tile: several of them.
    for vectors in {vectors for _, vectors in costs}:
        most = (cpu.registers - 1 - vectors) // vectors // size.width
        for lines in range(2, min(most, size.height) + 1):
            rows = lines * size.width
            costs[rows, vectors] = sum(
                strip.count * tile_cost(strip.lines * size.width, size.outputs, (rows, vectors), cpu)
                for strip in strips_of(size, rows)
            )
    best = min(costs.values())
    # Of tiles that are as good: the widest, which writes the most of a pixel at once, where the image is passed once;
    # else the narrowest, whose panel is the smallest. Then those that fit the lines.
    sign = -1 if widest_first else 1
    good = {tile for tile, cost in costs.items() if cost <= _AS_GOOD * best and is_avx512(cpu)}

    def order(tile: tuple[int, int]) -> tuple[bool, int, bool, float, tuple[int, int]]:
        if tile not in good:
            return True, 0, False, costs[tile], tile
        whole = size.width % tile[0] == 0 or tile[0] % size.width == 0
        return False, sign * tile[1], not whole, costs[tile], tile

    return sorted(costs, key=order)[:5]
