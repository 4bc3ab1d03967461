"""Convolution by 3 x 3 kernels through fewer multiplications: Winograd's minimal filtering F(m x m, 3 x 3).

Source: Lavin and Gray, 1509.09308, section 4: Y = A^T [(G g G^T) * (B^T d B)] A for each tile of m x m outputs, with
the matrices of the interpolation points 0, 1, -1 and infinity (m = 2), or 0, 1, -1, 2, -2 and infinity (m = 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from netopt.errors import InvalidArgument
from netopt.numerics import FLOATS, Shape
from netopt.ops.epilogue import EpilogueOp
from netopt.ops.op import Layouts, TensorType, expect_inputs
from netopt.ops.pointwise import Pointwise
from netopt.ops.spatial import Sides, Window

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Transform:
    """The matrices of F(m x m, 3 x 3), by rows: A^T (m, m + 2), G (m + 2, 3), B^T (m + 2, m + 2)."""

    at: Matrix
    g: Matrix
    bt: Matrix


# Rows of G times those of B^T may be scaled against each other; B^T has whole numbers here.
TRANSFORMS: dict[int, Transform] = {
    2: Transform(
        at=((1, 1, 1, 0), (0, 1, -1, 1)),
        g=((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
        bt=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),
    ),
    4: Transform(
        at=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
        g=(
            (1 / 4, 0, 0),
            (-1 / 6, -1 / 6, -1 / 6),
            (-1 / 6, 1 / 6, -1 / 6),
            (1 / 24, 1 / 12, 1 / 6),
            (1 / 24, -1 / 12, 1 / 6),
            (0, 0, 1),
        ),
        bt=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
    ),
}


@dataclass(frozen=True)
class Tiling:
    """How the outputs are cut into tiles, and the tiles into blocks that are computed one after the other.

    Attributes:
        rows, columns: tiles of one image.
        block_images: images of a block; above 1 only with all rows.
        block_rows: rows of tiles of a block.
    """

    rows: int
    columns: int
    block_images: int
    block_rows: int

    @property
    def tiles(self) -> int:
        """Tiles of a whole block."""
        return self.block_images * self.block_rows * self.columns


# Bytes of transformed inputs and products of a block: about what a second-level cache holds.
_BLOCK_BYTES = 768 * 1024


@dataclass(frozen=True)
class Winograd2d(EpilogueOp):
    """y = activation(x * W + bias + residual) for W of 3 x 3, stride 1, with zero padding.

    Inputs, in order: x (batch, in, height, width), U (out, in, tile + 2, tile + 2) = G W G^T as `transform_weight`
    makes it, bias (out,) if any, residual of the output's shape if any.

    The result differs from that of a direct convolution by more than the order of the sums does: in float32 the root
    mean square of the error was about 1.7 times a direct convolution's for tiles of 2, and 11 times for tiles of 4,
    with 256 channels of normally distributed numbers.

    Attributes:
        tile: m, the outputs of a tile along each axis: 2 or 4.
        padding: top, bottom, left, right.
    """

    tile: int
    padding: Sides = (0, 0, 0, 0)
    has_bias: bool = False
    has_residual: bool = False
    activation: Pointwise | None = None
    name: ClassVar[str] = "winograd2d"
    layouts = Layouts.IMAGES
    formats = FLOATS

    def __post_init__(self) -> None:
        if self.tile not in TRANSFORMS:
            raise InvalidArgument("tile of winograd2d", expected=f"one of {list(TRANSFORMS)}", found=self.tile)
        self.window.check(self.name)

    @property
    def window(self) -> Window:
        """The window of the convolution that this is."""
        return Window((3, 3), (1, 1), self.padding, (1, 1))

    @property
    def points(self) -> int:
        """Elements of a transformed tile along each axis."""
        return self.tile + 2

    def infer(self, inputs: Sequence[TensorType]) -> TensorType:
        expect_inputs(self, inputs, 2 + self.has_bias + self.has_residual)
        x, weight = inputs[0].shape, inputs[1].shape
        if len(x) != 4 or len(weight) != 4 or weight[1:] != (x[1], self.points, self.points):
            raise InvalidArgument(
                "winograd2d",
                expected=f"x (batch, in, height, width) and weight (out, in, {self.points}, {self.points})",
                found=f"{x} and {weight}",
            )
        output = (x[0], weight[0], *self.window.outputs(x, self.name))
        self.expect_epilogue(inputs, weight[0], output)
        return TensorType(output)

    def reference(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.apply_epilogue(self.convolve(inputs[0], inputs[1], TRANSFORMS[self.tile]), inputs, (-1, 1, 1))

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, transform: Transform) -> torch.Tensor:
        """A^T [U * (B^T d B)] A of all tiles, summed over the inputs."""
        x_shape = tuple(x.shape)
        bt, at = x.new_tensor(transform.bt), x.new_tensor(transform.at)
        top, bottom, left, right = self.halo(x_shape, tuple(weight.shape))
        tiles = F.pad(x, (left, right, top, bottom)).unfold(2, self.points, self.tile).unfold(3, self.points, self.tile)
        v = torch.einsum("ij,nctujk,lk->nctuil", bt, tiles, bt)
        products = torch.einsum("ocil,nctuil->notuil", weight, v)
        y = torch.einsum("ij,notujk,lk->notiul", at, products, at)
        batch, outputs, rows, tile, columns, _ = y.shape
        height, width = self.window.outputs(x_shape, self.name)
        return y.reshape(batch, outputs, rows * tile, columns * tile)[:, :, :height, :width]

    def halo(self, x: Shape, weight: Shape) -> Sides:
        """The zeros around x that the tiles reach into (top, bottom, left, right): padding, and what fills the last."""
        height, width = self.window.outputs(x, self.name)
        top, bottom, left, right = self.padding
        return top, bottom + -height % self.tile, left, right + -width % self.tile

    def tiling(self, x: Shape, outputs: int) -> Tiling:
        """The tiles and blocks for an input of this shape."""
        height, width = self.window.outputs(x, self.name)
        rows, columns = -(-height // self.tile), -(-width // self.tile)
        tile_bytes = 4 * self.points**2 * (x[1] + outputs)
        # Each block reads all weights: where these are large, blocks must be, too.
        budget = max(_BLOCK_BYTES, 4 * self.points**2 * x[1] * outputs // 2)
        most = max(1, budget // (tile_bytes * columns))
        if most >= rows:
            return Tiling(rows, columns, _even(x[0], max(1, most // rows)), rows)
        return Tiling(rows, columns, 1, _even(rows, most))

    def halo_read(self, inputs: Sequence[TensorType]) -> Sides:
        return self.halo(inputs[0].shape, inputs[1].shape)

    def multiply_adds(self, inputs: Sequence[TensorType]) -> int:
        x, weight = inputs[0].shape, inputs[1]
        tiling = self.tiling(x, weight.shape[0])
        return x[0] * tiling.rows * tiling.columns * weight.elements

    def scratch_bytes(self, inputs: Sequence[TensorType]) -> int:
        outputs, channels = inputs[1].shape[:2]
        return 4 * self.points**2 * self.tiling(inputs[0].shape, outputs).tiles * (channels + outputs)


def _even(total: int, most: int) -> int:
    """The size of the largest of as few parts as possible of at most `most`."""
    parts = -(-total // most)
    return -(-total // parts)


def transform_weight(weight: torch.Tensor, tile: int) -> torch.Tensor:
    """U = G g G^T of each kernel g: (out, in, 3, 3) -> (out, in, tile + 2, tile + 2).

    Computed in float64 and rounded once to the type of `weight`.
    """
    g = torch.tensor(TRANSFORMS[tile].g, dtype=torch.float64)
    return torch.einsum("ij,ocjk,lk->ocil", g, weight.double(), g).to(weight.dtype)
