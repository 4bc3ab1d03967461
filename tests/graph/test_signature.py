from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netopt.errors import FileFormatError, InvalidArgument, InvalidType
from netopt.graph import Nesting

TENSOR = Nesting("tensor")
EXAMPLE = {"left": torch.tensor(0.0), "rest": [torch.tensor(1.0), (torch.tensor(2.0), {}, torch.tensor(3.0))]}
STRUCTURE = Nesting(
    "dict",
    ("left", "rest"),
    (TENSOR, Nesting("list", (), (TENSOR, Nesting("tuple", (), (TENSOR, Nesting("dict"), TENSOR))))),
)
NESTINGS = st.recursive(
    st.just(0.0),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


def _numbered(nesting: Any, number: list[int]) -> Any:
    """The nesting with tensors 0, 1, 2 ... in order in place of its leaves."""
    if isinstance(nesting, dict):
        return {key: _numbered(part, number) for key, part in nesting.items()}
    if isinstance(nesting, list | tuple):
        return type(nesting)([_numbered(part, number) for part in nesting])
    number[0] += 1
    return torch.tensor(float(number[0] - 1))


def test_structure_of_a_nesting() -> None:
    assert Nesting.of(EXAMPLE, "example") == STRUCTURE
    assert Nesting.of(torch.ones(2), "example") == TENSOR
    assert Nesting.of((), "example") == Nesting("tuple")


def test_tensors_are_flattened_in_order() -> None:
    assert [t.item() for t in STRUCTURE.flatten(EXAMPLE, "input")] == [0.0, 1.0, 2.0, 3.0]


def test_a_dict_may_come_in_another_order() -> None:
    swapped = {key: EXAMPLE[key] for key in ("rest", "left")}
    assert [t.item() for t in STRUCTURE.flatten(swapped, "input")] == [0.0, 1.0, 2.0, 3.0]


def test_a_list_may_stand_for_a_tuple() -> None:
    pair = Nesting.of((torch.tensor(1.0), torch.tensor(2.0)), "input")
    assert [t.item() for t in pair.flatten([torch.tensor(1.0), torch.tensor(2.0)], "input")] == [1.0, 2.0]


def test_names_say_where_a_tensor_is() -> None:
    assert list(STRUCTURE.names("x")) == ["x['left']", "x['rest'][0]", "x['rest'][1][0]", "x['rest'][1][2]"]
    assert list(TENSOR.names("x")) == ["x"]


@given(nesting=NESTINGS)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_round_trips(nesting: object) -> None:
    value = _numbered(nesting, [0])
    structure = Nesting.of(value, "input")
    tensors = structure.flatten(value, "input")
    assert [t.item() for t in tensors] == list(range(structure.count()))
    assert len(list(structure.names("x"))) == structure.count()
    rest = iter([*tensors, torch.tensor(-1.0)])
    rebuilt = structure.unflatten(rest)
    assert next(rest).item() == -1.0, "takes only the tensors that it needs"
    assert rebuilt == value  # the same tensor objects, so == compares by identity
    assert json.dumps(rebuilt, default=float) == json.dumps(value, default=float), "and the same order of keys"
    assert _types(rebuilt) == _types(value)
    assert Nesting.from_json(json.loads(json.dumps(structure.to_json()))) == structure


def _types(value: Any) -> object:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return type(value).__name__, [_types(part) for part in parts]


@pytest.mark.parametrize(
    ("value", "where", "found"),
    [
        (1j, "example", "complex"),
        ({"a": [torch.ones(1), object()]}, r"example\['a'\]\[1\]", "object"),
        ({1: torch.ones(1)}, "example", "dict"),
        ({torch.ones(1)}, "example", "set"),
    ],
    ids=["complex", "nested object", "dict with int keys", "set"],
)
def test_anything_else_is_refused(value: object, where: str, found: str) -> None:
    expected = "a tensor, None, a number or a text, or a tuple, list or dict"
    with pytest.raises(InvalidType, match=rf"^{where}: expected {expected}.*, found {found}$"):
        Nesting.of(value, "example")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"^input: expected a dict of .*, found a list of 0$"),
        (torch.ones(1), r"^input: expected a dict of .*, found Tensor$"),
        ({"left": torch.ones(1)}, r"^input: expected a dict of .*, found a dict with keys \['left'\]$"),
        (
            {**EXAMPLE, "more": torch.ones(1)},
            r"^input: expected .*, found a dict with keys \['left', 'rest', 'more'\]$",
        ),
        ({**EXAMPLE, "left": 1.0}, r"^input\['left'\]: expected a tensor, found float$"),
        ({**EXAMPLE, "rest": [torch.ones(1)]}, r"^input\['rest'\]: expected a list of 2 .*, found a list of 1$"),
        (
            {**EXAMPLE, "rest": [torch.ones(1), torch.ones(3)]},
            r"^input\['rest'\]\[1\]: expected a tuple of 3 .*Tensor$",
        ),
        ({**EXAMPLE, "rest": torch.ones(2)}, r"^input\['rest'\]: expected a list of 2 .*, found Tensor$"),
    ],
)
def test_another_nesting_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        STRUCTURE.flatten(value, "input")


def test_text() -> None:
    assert str(STRUCTURE) == (
        "a dict of 'left': a tensor, "
        "'rest': a list of 2 (a tensor, a tuple of 3 (a tensor, a dict of nothing, a tensor))"
    )


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "tensor",
        {},
        {"kind": "tensor", "keys": []},
        {"kind": "set", "keys": [], "parts": []},
        {"kind": ["tensor"], "keys": [], "parts": []},
        {"kind": "tensor", "keys": [], "parts": [TENSOR.to_json()]},
        {"kind": "tensor", "keys": ["a"], "parts": []},
        {"kind": "tuple", "keys": ["a"], "parts": [TENSOR.to_json()]},
        {"kind": "tuple", "keys": [], "parts": {}},
        {"kind": "tuple", "keys": "", "parts": []},
        {"kind": "tuple", "keys": [], "parts": [1]},
        {"kind": "dict", "keys": [], "parts": [TENSOR.to_json()]},
        {"kind": "dict", "keys": ["a"], "parts": []},
        {"kind": "dict", "keys": [1], "parts": [TENSOR.to_json()]},
        {"kind": "dict", "keys": [["a"]], "parts": [TENSOR.to_json()]},
    ],
    ids=str,
)
def test_json_of_no_structure_is_refused(data: object) -> None:
    with pytest.raises(FileFormatError, match="structure of inputs or outputs"):
        Nesting.from_json(data)


def test_a_dict_has_each_key_once() -> None:
    """Two tensors under one key: one of them would be lost."""
    data = {"kind": "dict", "keys": ["a", "a"], "parts": [TENSOR.to_json()] * 2}
    with pytest.raises(FileFormatError, match="structure of inputs or outputs"):
        Nesting.from_json(data)
