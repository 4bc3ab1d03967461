"""Ops to and from plain data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netopt import InvalidArgument
from netopt.ops import OPS, Dense, LayerNorm, Op, Pointwise, Pool2d
from netopt.ops.serialize import op_from_json, op_to_json
from tests.ops.test_ops import CASES


@pytest.mark.parametrize("op", [case[0] for case in CASES], ids=str)
def test_round_trip_through_text(op: Op) -> None:
    assert op_from_json(json.loads(json.dumps(op_to_json(op))), OPS) == op


def test_the_name_is_that_of_the_table() -> None:
    assert op_to_json(LayerNorm(2, 0.5)) == {"op": "layer_norm", "axes": 2, "epsilon": 0.5}


GOOD: dict[str, Any] = op_to_json(Dense(True, False, Pointwise("relu")))


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"op": "conv9d"},
        {"op": 3},
        {**GOOD, "more": 1},
        {key: value for key, value in GOOD.items() if key != "has_bias"},
        {**GOOD, "has_bias": 1},
        {**GOOD, "activation": "relu"},
        {**GOOD, "activation": GOOD},
        {**GOOD, "activation": {"op": "pointwise", "function": "relu", "parameters": [1.0]}},
        {"op": "pointwise", "function": "leaky_relu", "parameters": ["0.1"]},
        {"op": "permute", "axes": [True]},
        {"op": "permute", "axes": 1},
        {"op": "softmax", "axis": 1.0, "log": False},
        {"op": "layer_norm", "axes": 1, "epsilon": None},
    ],
)
def test_what_is_no_op_is_refused(data: Any) -> None:
    with pytest.raises(InvalidArgument):
        op_from_json(data, OPS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("excess", [1]),
        ("stride", [1, 1, 1]),
        ("padding", []),
        ("dilation", [1, 2**64]),
        ("kernel", [2, 2**31]),
    ],
)
def test_tuples_of_another_length_and_integers_beyond_32_bits_are_refused(name: str, value: list[int]) -> None:
    data = op_to_json(Pool2d("max", (2, 2), (1, 1)))
    assert op_from_json(json.loads(json.dumps(data)), OPS) == Pool2d("max", (2, 2), (1, 1))
    with pytest.raises(InvalidArgument, match=rf"^pool2d\.{name}: expected"):
        op_from_json({**data, name: value}, OPS)
