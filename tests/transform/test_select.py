"""Layer handles and selections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from netopt import InvalidArgument, InvalidType
from netopt.transform.select import Layer, check_selection, layers_of, select


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)),
    )


def linears() -> list[Layer]:
    return [layer for layer in layers_of(network()) if isinstance(layer.module, nn.Linear)]


def test_names_and_order() -> None:
    assert [layer.name for layer in layers_of(network())] == ["", "0", "1", "2", "2.0", "2.1", "2.2"]


def test_first_and_last_are_counted_among_layers_with_weights() -> None:
    ends = {layer.name: (layer.is_first, layer.is_last) for layer in layers_of(network())}
    assert ends.pop("0") == (True, False)
    assert ends.pop("2.2") == (False, True)
    assert set(ends.values()) == {(False, False)}


def test_a_model_that_is_one_layer_is_its_first_and_last() -> None:
    (layer,) = layers_of(nn.Linear(2, 3))
    assert (layer.name, layer.is_first, layer.is_last) == ("", True, True)


def test_a_module_used_twice_comes_once() -> None:
    shared = nn.Linear(4, 4)
    assert [layer.name for layer in layers_of(nn.Sequential(shared, nn.ReLU(), shared))] == ["", "0", "1"]


def test_attributes_of_the_module() -> None:
    layers = {layer.name: layer for layer in layers_of(network())}
    assert layers["0"].kernel_size == (3, 3)
    assert layers["2.2"].weight.shape == (4, 8)
    with pytest.raises(AttributeError, match=r"layer '2.2' \(Linear\) has no attribute 'kernel_size'"):
        _ = layers["2.2"].kernel_size


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (None, [True, True]),
        (lambda layer: layer.name != "2.0", [False, True]),
        (lambda layer: layer.weight.shape[0] == layer.weight.shape[1], [True, False]),
        (lambda layer: np.bool_(layer.is_last), [False, True]),
        (lambda layer: (layer.weight.numel() > torch.tensor(32)).all(), [True, False]),
        ("2.?", [True, True]),
        ("*.2", [False, True]),
        (nn.Linear, [True, True]),
        (nn.Conv2d, [False, False]),
        (["*.0", nn.Conv2d], [True, False]),
        (("*.0", "*.2"), [True, True]),
    ],
)
def test_selections(selection: Any, expected: list[bool]) -> None:
    check_selection(selection)
    assert select(linears(), selection) == expected


def test_a_pattern_that_fits_nothing_names_what_there_is() -> None:
    with pytest.raises(InvalidArgument, match=r"pattern 'fc\*': .* found these layers: '2.0', '2.2'"):
        select(linears(), "fc*")


@pytest.mark.parametrize("answer", [None, 1, "yes", torch.ones(2)])
def test_a_filter_must_answer_true_or_false(answer: object) -> None:
    with pytest.raises(InvalidType, match="layer '2.0': answer of the filter: expected True or False"):
        select(linears(), lambda layer: answer)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("selection", [3, [], [3], int, ["a", lambda layer: True], {"a"}])
def test_what_is_no_selection(selection: object) -> None:
    with pytest.raises(InvalidType, match="selection of layers"):
        check_selection(selection)
