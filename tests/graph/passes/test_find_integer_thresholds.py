"""Sums of signs up to their sign: whole numbers, so that nothing changes, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netopt.numerics import INT32, SIGN_BITS
from netopt.ops import BinaryConv2d, Sign, SignPool2d
from netopt.quantization import RPReLU, Shift
from tests.binary_layers import assert_computes, conv, images, labels, trained
from tests.graph.passes.binary_graphs import SCALED, THRESHOLD, X, between, norm


@pytest.mark.parametrize(
    "modules",
    [
        [],
        [norm()],
        [norm(), nn.ReLU(), norm()],
        [nn.LeakyReLU(0.2), norm()],
        [norm(), nn.Hardtanh(), Shift(11)],
        [nn.PReLU(11), norm()],
        [RPReLU(11), norm(), nn.Dropout(0.5), nn.Identity()],
    ],
    ids=lambda modules: " ".join(type(module).__name__ for module in modules),
)
def test_what_stands_before_a_sign_becomes_a_threshold(modules: list[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, Shift | RPReLU):
            for parameter in module.parameters():
                parameter.data.uniform_(0.05, 0.9)
    graph = assert_computes(between(*modules), X, exact=True, compiled=len(modules) == 3)
    assert labels(graph) == THRESHOLD


def test_a_bias_and_a_scale_become_the_threshold() -> None:
    torch.manual_seed(0)
    first = conv(7, 11, 3, form=SCALED, bias=True)
    graph = assert_computes(trained(nn.Sequential(first, norm(), conv(11, 6, 3))), X, exact=True)
    assert labels(graph) == THRESHOLD


@pytest.mark.parametrize("gamma", [2.0, -2.0, 0.0])
@pytest.mark.parametrize("beta", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("mean", [0.0, 1.0, -3.0])
def test_sums_that_are_the_threshold_have_the_sign_plus_one(gamma: float, beta: float, mean: float) -> None:
    """Sums of 7 signs are odd; where they are 0.5 (beta of 1) or 0.0 away, gamma (sum - mean) + beta is exact."""
    batch_norm = nn.BatchNorm2d(11, eps=0.25)  # sqrt(0.75 + 0.25) = 1
    model = nn.Sequential(conv(7, 11, 1), batch_norm, conv(11, 6, 1)).eval()
    assert batch_norm.running_mean is not None
    assert batch_norm.running_var is not None
    for value, tensor in ((gamma, batch_norm.weight.data), (beta, batch_norm.bias.data)):
        tensor.fill_(value)
    batch_norm.running_mean.fill_(mean)
    batch_norm.running_var.fill_(0.75)
    graph = assert_computes(model, images(1, 7, 9, 9), exact=True, compiled=beta == mean == 1)
    (first, *_) = (node for node in graph.nodes if isinstance(node.op, BinaryConv2d))
    threshold = graph.constants[first.inputs[2]]
    assert threshold.dtype == torch.int32
    at = {2.0: mean - beta / 2, -2.0: -mean - beta / 2, 0.0: -8 if beta >= 0 else 8}[gamma]
    # The first integer that is not below it.
    assert threshold.tolist() == [int(-(-at // 1))] * 11


def test_a_threshold_that_falls_turns_the_weights() -> None:
    batch_norm = nn.BatchNorm2d(11)
    batch_norm.weight.data[::2] = -1.0
    model = nn.Sequential(conv(7, 11, 3), batch_norm, conv(11, 6, 3)).eval()
    graph = assert_computes(model, X, exact=True)
    first, *_ = (node for node in graph.nodes if isinstance(node.op, BinaryConv2d))
    weight = graph.constants[first.inputs[1]]
    expected = next(model.parameters()).sign().to(torch.int8)
    expected[::2] *= -1
    assert torch.equal(weight, expected)
    assert (graph.types[first.inputs[1]].format, graph.types[first.inputs[2]].format) == (SIGN_BITS, INT32)


@pytest.mark.parametrize("module", [nn.SiLU(), nn.PReLU(11), nn.GELU(), nn.AvgPool2d(3, 1, 1), nn.Softmax(1)])
def test_what_is_not_monotone_stays(module: nn.Module) -> None:
    if isinstance(module, nn.PReLU):
        module.weight.data[3] = -0.5
    graph = assert_computes(between(module, norm()), X, exact=True, compiled=False)
    first, _ = (node.op for node in graph.nodes if isinstance(node.op, BinaryConv2d))
    assert not first.has_threshold
    sign_, *_ = (n.op for n in graph.nodes[1:] if isinstance(n.op, Sign))
    assert sign_ == Sign(has_threshold=True), "of floats, of what follows"


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d((1, 2))])
@pytest.mark.parametrize("order", ["before", "after", "both", "none"])
def test_a_maximum_becomes_one_of_signs(pool: nn.Module, order: str) -> None:
    """Scales of both signs before and after it: the least sum may decide, or the largest."""
    before, after = ([norm()] if order in (place, "both") else [] for place in ("before", "after"))
    model = trained(nn.Sequential(conv(7, 11, 3), *before, pool, *after, conv(11, 6, 1)))
    graph = assert_computes(model, images(2, 7, 9, 8), exact=True, compiled=order == "both")
    assert labels(graph) == [*THRESHOLD[:2], "bits sign_pool2d", "binary_conv2d"]


def test_a_maximum_with_dilation_is_one_of_numbers() -> None:
    graph = assert_computes(between(nn.MaxPool2d(2, 1, dilation=2), norm()), X, exact=True)
    assert not any(isinstance(node.op, SignPool2d) for node in graph.nodes)
