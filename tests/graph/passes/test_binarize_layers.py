"""Layers of one bit: which ops come out, that bits stay bits, and that nothing changes, to the bit where it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from netopt.numerics import SIGNS
from netopt.ops import BinaryConv2d, BinaryDense
from netopt.quantization import TernaryWeights, sign
from tests.binary_layers import Model, assert_computes, conv, dense, images, labels, trained
from tests.graph.passes.binary_graphs import SCALED, THRESHOLD, X, both, norm, scaled_by_mean


def test_layers_after_each_other_pass_bits_and_nothing_else() -> None:
    torch.manual_seed(0)
    trunk = [conv(7, 40, 3, padding=1), norm(40), conv(40, 33, 3, padding=1), norm(33), conv(33, 4, 1), norm(4)]
    head = [nn.Flatten(), dense(4 * 30, 9), nn.BatchNorm1d(9), dense(9, 5)]
    graph = assert_computes(trained(nn.Sequential(*trunk, *head)), X, exact=True)
    values = [graph.types[node.output].format for node in graph.nodes]
    assert values[:3] == [SIGNS] * 3
    # Behind the flattening, numbers of another order; then bits again.
    assert labels(graph)[3:] == ["binary_conv2d", "bits sign", "bits binary_dense + threshold", "binary_dense"]


def test_padding_by_one() -> None:
    torch.manual_seed(0)
    layers = (conv(7, 11, 3, padding=1, pad_one=True), norm(), conv(11, 6, (3, 2), padding=(2, 1), pad_one=True))  # type: ignore[arg-type]
    graph = assert_computes(trained(nn.Sequential(*layers)), X, exact=True)
    assert labels(graph) == THRESHOLD
    ops = [node.op for node in graph.nodes if isinstance(node.op, BinaryConv2d)]
    assert [(op.pad_one, op.padding) for op in ops] == [(True, (1, 1, 1, 1)), (True, (2, 2, 1, 1))]


@pytest.mark.parametrize("leading", [(), (3,), (2, 3), (2, 3, 2), (2, 1, 3, 2)])
def test_dense_layers_with_leading_axes(leading: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    graph = assert_computes(nn.Sequential(dense(40, 33), dense(33, 8)).eval(), images(*leading, 40), exact=True)
    ops = [node.op for node in graph.nodes if isinstance(node.op, BinaryDense)]
    assert [op.has_threshold for op in ops] == ([True, False] if len(leading) == 1 else [False, False])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Sequential(dense(5, 6, form=SCALED, bias=True), nn.BatchNorm1d(6)), ["bits sign", "binary_dense"]),
        (lambda: dense(5, 6, form=SCALED, signs=False), ["binary_dense"]),
        (lambda: nn.Linear(5, 6), ["dense"]),
        (lambda: dense(1, 1), None),  # a scale, and no sum
        (lambda: Model(lambda m, x: F.linear(x, sign(m.fc.weight)), fc=nn.Linear(5, 6)), ["binary_dense"]),
        (lambda: Model(lambda m, x: F.linear(sign(x), m.fc.weight), fc=nn.Linear(5, 6)), ["sign", "dense"]),
    ],
)
def test_which_layers_have_one_bit(make: Callable[[], nn.Module], expected: list[str] | None) -> None:
    torch.manual_seed(0)
    model = trained(make())
    x = images(3, 1 if expected is None else 5)
    assert labels(assert_computes(model, x, exact=False, compiled=False)) == (expected or ["sign", "dense"])


def test_ternary_weights_are_two_of_one_bit() -> None:
    """Sums of both are added as numbers."""
    torch.manual_seed(0)
    graph = assert_computes(conv(7, 6, 3, form=TernaryWeights()).eval(), X, exact=False)
    assert labels(graph)[:2] == ["bits sign", "binary_conv2d"]


def shifted_by_mean(sums: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    return layer(sums) + sums.mean()  # type: ignore[no-any-return]


def with_its_sums(sums: torch.Tensor, layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    return sums, layer(sums)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # A sign that is an output, or that something else reads, is computed as numbers, too.
        (lambda m, x: (sign(x), m.one(x)), ["sign", "bits sign", "binary_conv2d"]),
        (lambda m, x: scaled_by_mean(sign(x), sign(m.one.weight)), None),
        # Two layers read one sign.
        (
            lambda m, x: both(sign(x), sign(m.one.weight), sign(m.two.weight)),
            ["bits sign", "binary_conv2d", "binary_conv2d + add"],
        ),
        # Sums that are read twice are no threshold.
        (lambda m, x: shifted_by_mean(m.one(x), m.last), None),
        # Nor are those that are an output.
        (lambda m, x: with_its_sums(m.one(x), m.last), None),
        # A network that ends in a sign gives numbers.
        (lambda m, x: sign(m.one(x)), ["bits sign", "binary_conv2d", "sign"]),
    ],
)
def test_signs_that_are_read_otherwise(function: Callable[..., Any], expected: list[str] | None) -> None:
    torch.manual_seed(0)
    model = Model(function, one=conv(7, 11, 3), two=conv(7, 11, 3), last=conv(11, 11, 3)).eval()
    graph = assert_computes(model, X, exact=False)
    assert expected is None or labels(graph) == expected
    assert "bits sign" in labels(graph)
    if expected is None:
        assert not any("threshold" in label for label in labels(graph))


@pytest.mark.parametrize(
    ("function", "pads"),
    [
        (lambda m, y: both(y, sign(m.one.weight), sign(m.two.weight)), 0),
        (lambda m, y: scaled_by_mean(y, sign(m.one.weight)), 1),
        (lambda m, y: F.conv2d(y, sign(m.one.weight), padding=1), 1),
        (lambda m, y: F.conv2d(y, m.one.weight), 1),
    ],
)
def test_padding_by_one_that_is_read_by_others(function: Callable[..., Any], pads: int) -> None:
    torch.manual_seed(0)
    padded = Model(
        lambda m, x: function(m, F.pad(sign(x), (1, 2, 0, 1), value=1.0)), one=conv(7, 5, 3), two=conv(7, 5, 3)
    )
    graph = assert_computes(padded.eval(), X, exact=False, compiled=pads == 0)
    assert labels(graph).count("pad") == pads


@pytest.mark.parametrize(
    ("sizes", "groups", "bits"),
    [((64, 64), 2, True), ((96, 96), 3, True), ((64, 32), 2, False), ((6, 8), 2, False), ((6, 6), 6, False)],
)
def test_groups(sizes: tuple[int, int], groups: int, bits: bool) -> None:
    """Of whole words they read bits, and write them; the others are right all the same."""
    torch.manual_seed(0)
    first = conv(*sizes, 3, padding=1, groups=groups)
    model = trained(nn.Sequential(first, norm(sizes[1]), conv(sizes[1], 5, 1)))
    graph = assert_computes(model, images(2, sizes[0], 5, 6), exact=True)
    depthwise = groups == sizes[0]
    middle = ["bits sign", "bits binary_conv2d + threshold"]
    numbers = ["sign", "conv2d" if depthwise else "binary_conv2d", "bits sign"]
    assert labels(graph) == [*(middle if bits else numbers), "binary_conv2d"]
