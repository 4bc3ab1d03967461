"""Layers with latent weights."""

from __future__ import annotations

from torch import nn

from netopt.transform.constraints import Latent


class Plain(nn.Linear, Latent):
    """Says nothing about its weights."""


def test_a_latent_layer_that_says_nothing_has_no_latent_weights_and_is_left_alone() -> None:
    layer = Plain(3, 2)
    before = layer.weight.detach().clone()
    layer.constrain()
    assert layer.latent_weights() == ()
    assert layer.saved_bytes() == 0
    assert layer.weight.equal(before)
