"""The geometry of convolutions, and of parts of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from netopt import InvalidArgument
from netopt.factorization.geometry import Geometry, blocks_of


@pytest.mark.parametrize(
    ("layer", "free"),
    [
        (nn.Conv2d(2, 2, 3), ()),
        (nn.Conv2d(2, 2, (3, 1)), (1,)),
        (nn.Conv2d(2, 2, (1, 3), stride=2), (0,)),
        (nn.Conv2d(2, 2, 1, stride=3), (0, 1)),
        (nn.Conv2d(2, 2, 1, padding=(0, 1)), (0,)),
        (nn.Conv2d(2, 2, (1, 3), padding="same"), (0,)),
        (nn.Conv2d(2, 2, 1, padding="valid"), (0, 1)),
        (nn.ConvTranspose2d(2, 2, 1), (0, 1)),
        (nn.ConvTranspose2d(2, 2, 1, stride=(2, 1)), (1,)),
        (nn.ConvTranspose2d(2, 2, 1, stride=(2, 1), output_padding=(1, 0)), (1,)),
        (nn.ConvTranspose2d(2, 2, 1, dilation=2, output_padding=(0, 1)), (0,)),
        (nn.Conv1d(2, 2, 1), (0,)),
        (nn.Conv1d(2, 2, 2), ()),
    ],
)
def test_axes_that_a_pointwise_convolution_can_do(layer: nn.Module, free: tuple[int, ...]) -> None:
    geometry = Geometry.of(layer)
    assert geometry.free == free
    assert geometry.bound == tuple(axis for axis in geometry.axes if axis not in free)


def test_a_stage_does_along_its_axes_what_the_layer_does_there() -> None:
    layer = nn.Conv2d(4, 6, (3, 5), stride=(2, 3), padding=(1, 2), dilation=(4, 5), padding_mode="reflect")
    geometry = Geometry.of(layer)
    assert geometry.area == 15
    vertical = geometry.stage("vertical", 4, 9, axes=(0,), groups=2)
    assert (vertical.kernel, vertical.stride, vertical.padding, vertical.dilation) == ((3, 1), (2, 1), (1, 0), (4, 1))
    assert (vertical.inputs, vertical.outputs, vertical.groups, vertical.padding_mode) == (4, 9, 2, "reflect")
    horizontal = geometry.stage("horizontal", 9, 6, axes=(1,), is_last=True)
    assert (horizontal.kernel, horizontal.stride, horizontal.padding) == ((1, 5), (1, 3), (0, 2))
    assert (vertical.bias, horizontal.bias) == (False, True)
    point = geometry.stage("point", 4, 6, axes=())
    assert (point.kernel, point.stride, point.padding, point.padding_mode) == ((1, 1), (1, 1), (0, 0), "zeros")


def test_padding_by_name() -> None:
    geometry = Geometry.of(nn.Conv2d(4, 6, (4, 3), padding="same"))
    assert geometry.stage("a", 4, 6, axes=(0,)).padding == "same"
    assert geometry.stage("a", 4, 6, axes=()).padding == (0, 0)
    assert Geometry.of(nn.Conv1d(4, 6, 4, padding="valid")).padding == (0,)


def test_transposed_stages_are_transposed_where_they_work() -> None:
    geometry = Geometry.of(nn.ConvTranspose2d(4, 6, (3, 1), stride=(2, 1), output_padding=(1, 0)))
    first, second = geometry.stage("a", 4, 5, axes=(1,)), geometry.stage("b", 5, 6, axes=(0,))
    assert (first.transposed, second.transposed) == (False, True)
    assert (first.output_padding, second.output_padding) == ((0, 0), (1, 0))


def test_blocks_are_copies_in_float64_with_outputs_first() -> None:
    ordinary, transposed = nn.Conv2d(6, 4, 3, groups=2), nn.ConvTranspose2d(6, 4, 3, groups=2)
    for layer in (ordinary, transposed):
        blocks = blocks_of(layer, "conv")
        assert [(block.shape, block.dtype) for block in blocks] == [((2, 3, 3, 3), torch.float64)] * 2
        before = layer.weight.detach().clone()
        for block in blocks:
            block.zero_()
        assert torch.equal(layer.weight, before)
    assert blocks_of(ordinary, "")[1][0, 2, 1, 0] == ordinary.weight[2, 2, 1, 0].double()
    assert blocks_of(transposed, "")[1][0, 2, 1, 0] == transposed.weight[5, 0, 1, 0].double()


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_weights_that_cannot_be_decomposed(poison: float) -> None:
    layer = nn.Conv2d(2, 2, 3)
    layer.weight.data[1, 0, 2, 2] = poison
    with pytest.raises(InvalidArgument, match="layer 'conv': weight: expected finite numbers, found NaN or infinity"):
        blocks_of(layer, "conv")
