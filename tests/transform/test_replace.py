"""Modules put in the place of others."""

from __future__ import annotations

from torch import nn

from netopt.transform.replace import put


def test_in_all_its_places() -> None:
    shared, new = nn.ReLU(), nn.GELU()
    inner = nn.Sequential(shared)
    model = nn.Sequential(shared, inner, nn.ReLU())
    assert put(model, shared, new) is model
    assert model[0] is inner[0] is new
    assert isinstance(model[2], nn.ReLU)


def test_the_model_itself() -> None:
    model, new = nn.ReLU(), nn.GELU()
    assert put(model, model, new) is new


def test_a_replacement_keeps_what_it_holds() -> None:
    old = nn.ReLU()
    model, new = nn.Sequential(old), nn.Sequential(old)
    put(model, old, new)
    assert model[0] is new
    assert new[0] is old


def test_what_stands_nowhere_changes_nothing() -> None:
    model = nn.Sequential(nn.ReLU())
    (before,) = model
    assert put(model, nn.ReLU(), nn.GELU()) is model
    assert model[0] is before
