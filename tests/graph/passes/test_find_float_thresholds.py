"""Signs of floating numbers with a threshold, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netopt.numerics import FLOAT32
from netopt.ops import Sign
from netopt.quantization import Shift
from tests.binary_layers import assert_computes, conv, labels, trained
from tests.graph.passes.binary_graphs import X, norm


@pytest.mark.parametrize(
    "modules",
    [[norm(7)], [norm(7), Shift(7)], [nn.ReLU(), norm(7)], [nn.Hardtanh(-2.0, 1.0), nn.LeakyReLU(0.1), norm(7)]],
)
def test_a_chain_on_floats_becomes_a_sign_with_a_threshold(modules: list[nn.Module]) -> None:
    torch.manual_seed(0)
    model = trained(nn.Sequential(*modules, conv(7, 6, 3)))
    graph = assert_computes(model, X, exact=True)
    assert labels(graph) == ["bits sign", "binary_conv2d"]
    assert graph.nodes[0].op == Sign(has_threshold=True)
    assert {type_.format for type_ in graph.node_types(graph.nodes[0])} == {FLOAT32}
