"""Dense layers whose weights have a scale for each group of inputs, in register tiles.

The scales lie beside the codes: (outputs / tile, groups, tile), so that a tile reads them one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from netopt.kernels.machine.cpu import Cpu
from netopt.kernels.machine.formats import Array
from netopt.kernels.machine.kernel import Problem
from netopt.kernels.parts.grouped_product import GroupedProduct
from netopt.kernels.parts.panels import pack_panels, unpack_panels
from netopt.kernels.parts.tile import TileSchedule
from netopt.kernels.parts.tiled_dense import TiledDense
from netopt.numerics import BFLOAT16, Grouped, NumberFormat, Shape
from netopt.ops import Dense


class GroupedDense(TiledDense):
    """A dense layer with grouped weights."""

    def __init__(self, problem: Problem[Dense], cpu: Cpu) -> None:
        weights = problem.inputs[1].format
        assert isinstance(weights, Grouped)
        self.weights = weights
        super().__init__(problem, GroupedProduct(cpu.lanes, weights, problem.inputs[0].format))

    def weight_parts(self, s: TileSchedule) -> Mapping[str, tuple[Shape, NumberFormat]]:
        return {**super().weight_parts(s), "group_scales": (self._scales_shape(s), BFLOAT16)}

    def _scales_shape(self, s: TileSchedule) -> Shape:
        tile = s.vectors * self.product.lanes
        return (self.padded(s) // tile, self.weights.groups(self.inputs), tile)

    def pack_weight(self, s: TileSchedule, value: Array) -> Sequence[Array]:
        codes, scales = self.weights.parts_of_bytes(value, (self.outputs, self.inputs))
        bits = BFLOAT16.to_array(scales)[None]
        return [*super().pack_weight(s, codes.numpy()), pack_panels(bits, self._scales_shape(s)[-1], self.padded(s))]

    def unpack_parts(self, packed: Sequence[Array], shape: Shape) -> Array:
        codes = torch.from_numpy(np.ascontiguousarray(self.unpack_weight(packed[0]))).reshape(shape)
        groups = self.weights.groups(self.inputs)
        bits = unpack_panels(packed[1][None], self.outputs, groups)
        scales = BFLOAT16.to_tensor(bits, (self.outputs, groups))
        return self.weights.joined_bytes((codes, scales), shape)
