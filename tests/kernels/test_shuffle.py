"""Shuffles are copies: to the bit, in every layout."""

from __future__ import annotations

import pytest
import torch

from netopt.ops import CHANNELS_LAST, ROW_MAJOR, ChannelShuffle, Layout, PixelShuffle, PixelUnshuffle
from tests.kernels.harness import run_kernel
from tests.kernels.images import A, B, randn


@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 2), (64, 2), (96, 3), (116, 2), (40, 20), (5, 5)])
@pytest.mark.parametrize(
    ("source", "target"), [(A, B), (CHANNELS_LAST, CHANNELS_LAST), (ROW_MAJOR, B), (ROW_MAJOR, ROW_MAJOR)]
)
def test_channel_shuffle(channels: int, groups: int, source: Layout, target: Layout) -> None:
    op, x = ChannelShuffle(groups), randn(2, channels, 3, 5)
    result = run_kernel(op, [x], layouts=[source], output=target)
    assert torch.equal(result, torch.nn.functional.channel_shuffle(x, groups))


@pytest.mark.parametrize(("channels", "factor"), [(3, 2), (1, 3), (20, 2), (5, 1)])
@pytest.mark.parametrize(("source", "target"), [(A, B), (CHANNELS_LAST, CHANNELS_LAST)])
def test_pixel_shuffle_and_back(channels: int, factor: int, source: Layout, target: Layout) -> None:
    x = randn(2, channels * factor * factor, 3, 5)
    shuffled = torch.nn.functional.pixel_shuffle(x, factor)
    assert torch.equal(run_kernel(PixelShuffle(factor), [x], layouts=[source], output=target), shuffled)
    assert torch.equal(run_kernel(PixelUnshuffle(factor), [shuffled], layouts=[source], output=target), x)
