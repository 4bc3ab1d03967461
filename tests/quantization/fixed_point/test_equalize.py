"""Equalized layers: the same function, and like ranges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from netopt.errors import InvalidArgument
from netopt.quantization.fixed_point.calibration import MinMax, place_weight
from netopt.quantization.fixed_point.equalize import equalize


def layers(groups: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    sizes = torch.logspace(-3, 3, 8)[torch.randperm(8)]
    weight1 = torch.randn(8, 5, 1, 1) * sizes.reshape(-1, 1, 1, 1)
    return torch.rand(3, 5, 6, 6), weight1, torch.randn(8) * sizes, torch.randn(8, 8 // groups, 3, 3)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_the_function_is_the_same_and_ranges_are_equal(groups: int) -> None:
    x, weight1, bias1, weight2 = (tensor.double() for tensor in layers(groups))
    new1, new_bias, new2 = equalize(weight1, bias1, weight2, groups=groups)
    expected = F.conv2d(F.conv2d(x, weight1, bias1).relu(), weight2, groups=groups)
    torch.testing.assert_close(F.conv2d(F.conv2d(x, new1, new_bias).relu(), new2, groups=groups), expected)
    range1 = new1.flatten(1).abs().amax(1)
    by_group = new2.reshape(groups, 8 // groups, 8 // groups, -1).abs().amax((1, 3)).reshape(-1)
    torch.testing.assert_close(range1, by_group)
    assert (
        range1.max() / range1.min()
        < 1e-1 * weight1.flatten(1).abs().amax(1).max() / weight1.flatten(1).abs().amax(1).min()
    )


def test_with_powers_of_two_no_result_changes() -> None:
    x, weight1, bias1, weight2 = layers(8)
    new1, new_bias, new2 = equalize(weight1, bias1, weight2, groups=8, kind="power")
    assert torch.equal(
        F.conv2d(F.conv2d(x, new1, new_bias).relu(), new2, groups=8),
        F.conv2d(F.conv2d(x, weight1, bias1).relu(), weight2, groups=8),
    )
    ratio = new1.flatten(1).abs().amax(1) / new2.flatten(1).abs().amax(1)
    assert bool(((ratio > 0.49) & (ratio < 2.01)).all())


def test_one_step_for_all_weights_then_serves() -> None:
    """What it is for: a depthwise layer whose channels differ by six orders of magnitude, in 8 bits of one step."""
    x, weight1, bias1, weight2 = layers(8)
    weight2 = weight2 / weight1.flatten(1).abs().amax(1).reshape(-1, 1, 1, 1)
    expected = F.conv2d(F.conv2d(x, weight1, bias1).relu(), weight2, groups=8)

    def error(*weights: Any) -> float:
        first, bias, second = weights
        rounded = []
        for weight in (first, second):
            format_ = place_weight(weight, 8, by_channel=False, method=MinMax())
            rounded.append(format_.decode(format_.encode(weight)))
        found = F.conv2d(F.conv2d(x, rounded[0], bias).relu(), rounded[1], groups=8)
        return float((found - expected).square().mean() / expected.square().mean())

    assert error(weight1, bias1, weight2) > 0.1
    assert error(*equalize(weight1, bias1, weight2, groups=8)) < 1e-3


def test_of_dense_layers_without_bias_and_with_dead_channels() -> None:
    torch.manual_seed(1)
    weight1, weight2 = torch.randn(4, 3), torch.randn(2, 4)
    weight1[1], weight2[:, 2] = 0, 0
    before = weight1.clone(), weight2.clone()
    new1, bias, new2 = equalize(weight1, None, weight2)
    assert bias is None
    assert torch.equal(weight1, before[0]) and torch.equal(weight2, before[1])
    assert torch.equal(new1[[1, 2]], weight1[[1, 2]]) and torch.equal(new2[:, [1, 2]], weight2[:, [1, 2]])
    x = torch.randn(5, 3)
    torch.testing.assert_close(F.linear(F.linear(x, new1).relu(), new2), F.linear(F.linear(x, weight1).relu(), weight2))


def test_shapes_that_do_not_fit() -> None:
    for shapes in (((4, 3), (4,), (2, 5)), ((4, 3), (3,), (2, 4)), ((4, 3), (4,), (4,))):
        with pytest.raises(InvalidArgument, match="weights to equalize"):
            equalize(*(torch.zeros(shape) for shape in shapes))  # type: ignore[misc]
    with pytest.raises(InvalidArgument, match="in 3 groups"):
        equalize(torch.zeros(6, 2), None, torch.zeros(4, 2), groups=3)
