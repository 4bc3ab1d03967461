"""Groups of layers."""

from __future__ import annotations

import pytest
from torch import nn

from netopt import Group, InvalidArgument, InvalidType, Layer
from netopt.transform.group import check_groups, is_within


def layer(name: str) -> Layer:
    return Layer(name, nn.Linear(2, 2), False, False)


A, B, INNER = layer("a"), layer("b"), layer("a.0")


def test_names_and_the_layer_of_a_group_of_one() -> None:
    assert Group((A, B)).names == ("a", "b")
    assert Group((A,)).layer is A
    with pytest.raises(InvalidArgument, match="Group: expected a layer on its own, found several: 'a', 'b'"):
        _ = Group((A, B)).layer


def test_a_group_has_layers() -> None:
    with pytest.raises(InvalidArgument, match="Group: expected at least one layer, found none"):
        Group(())
    with pytest.raises(InvalidType, match="Group: expected a tuple of layers"):
        Group([A])  # type: ignore[arg-type]
    with pytest.raises(InvalidType, match="Group: expected a tuple of layers"):
        Group((nn.Linear(2, 2),))  # type: ignore[arg-type]


def test_groups_hold_each_layer_once_at_most() -> None:
    assert check_groups([Group((B,))], [A, B], "T") == (Group((B,)),)
    for groups in ([Group((A, B)), Group((A,))], [Group((A, A))], [Group((INNER,))]):
        with pytest.raises(InvalidArgument, match="T.groups: expected each of the layers given, once") as caught:
            check_groups(groups, [A, B], "T")
        assert caught.value.layer in ("a", "a.0")
    with pytest.raises(InvalidType, match="T.groups: expected a sequence of netopt.Group"):
        check_groups([(A, B)], [A, B], "T")


def test_layers_of_a_group_stand_side_by_side() -> None:
    with pytest.raises(InvalidArgument, match=r"layer 'a.0': T.groups: .* found a part of layer 'a'"):
        check_groups([Group((A, INNER))], [A, INNER], "T")
    assert check_groups([Group((A,)), Group((INNER,))], [A, INNER], "T")


def test_is_within() -> None:
    assert is_within("a.0", "a") and is_within("a", "")
    assert not is_within("a", "a") and not is_within("ab", "a")
