"""Scales and shifts of channels at the end of layers of one bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from netopt.ops import BinaryConv2d
from tests.binary_layers import Model, assert_computes, conv, dense, images, labels, trained
from tests.graph.passes.binary_graphs import SCALED, X, norm


@pytest.mark.parametrize("outputs", [8, 16])
def test_a_dense_layer_on_images_and_what_scales_their_channels(outputs: int) -> None:
    """Its outputs are the last axis, and the batch norm's channels the second."""
    torch.manual_seed(0)
    model = trained(nn.Sequential(dense(6, outputs), norm(8)))
    assert_computes(model, images(2, 8, 5, 6), exact=False)
    model = Model(lambda m, x: m.fc(m.conv(x)) * m.scale, conv=nn.Conv2d(8, 8, 1), fc=dense(6, 8)).eval()
    model.scale = nn.Parameter(images(8, 1, 1))
    assert_computes(model, images(2, 8, 5, 6), exact=False)


SCALES: list[tuple[str, Callable[[], nn.Module], str, tuple[bool, bool]]] = [
    ("nothing", lambda: conv(7, 7, 3, padding=1), "binary_conv2d", (False, False)),
    ("bias", lambda: conv(7, 7, 3, bias=True), "binary_conv2d", (True, True)),
    ("scale", lambda: conv(7, 7, 3, form=SCALED), "binary_conv2d", (True, False)),
    ("scale, bias", lambda: conv(7, 7, 3, form=SCALED, bias=True), "binary_conv2d", (True, True)),
    ("norm", lambda: nn.Sequential(conv(7, 7, 3, form=SCALED, bias=True), norm(7)), "binary_conv2d", (True, True)),
    ("floats", lambda: nn.Sequential(conv(7, 7, 3, form=SCALED, signs=False), norm(7)), "binary_conv2d", (True, True)),
    ("relu", lambda: nn.Sequential(conv(7, 7, 3), norm(7), nn.ReLU()), "binary_conv2d + relu", (True, True)),
    (
        "residual",
        lambda: Model(lambda m, x: (m.n(m.c(x)) + x).relu(), c=conv(7, 7, 3, padding=1, form=SCALED), n=norm(7)),
        "binary_conv2d + add + relu",
        (True, True),
    ),
]


@pytest.mark.parametrize(("make", "label", "ends"), [case[1:] for case in SCALES], ids=[case[0] for case in SCALES])
def test_scales_and_shifts_become_one_of_each(
    make: Callable[[], nn.Module], label: str, ends: tuple[bool, bool]
) -> None:
    torch.manual_seed(0)
    graph = assert_computes(trained(make()), X, exact=False, compiled="+" in label)
    assert labels(graph)[-1] == label
    op = graph.nodes[-1].op
    assert isinstance(op, BinaryConv2d)
    assert (op.has_scale, op.has_bias) == ends
