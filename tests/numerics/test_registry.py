"""Formats as plain data."""

from __future__ import annotations

import json
import math

import pytest

from netopt.errors import InvalidArgument
from netopt.numerics import FLOAT32, SIGNS, NumberFormat, number_format_from_json
from tests.numerics.test_format import FORMATS


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_json_round_trip(number_format: NumberFormat) -> None:
    data = json.loads(json.dumps(number_format.to_json()))
    assert number_format_from_json(data) == number_format


def test_json_names_the_format_and_its_fields() -> None:
    assert FLOAT32.to_json() == {"name": "float32"}
    assert SIGNS.to_json() == {"name": "sign", "word": 32}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "float33"},
        {"name": None},
        {"name": ["float32"]},
        {"bits": 8, "fraction_bits": 3},
        {"name": "float32", "bits": 32},
        {"name": "fixed"},
        {"name": "fixed", "bits": 8},
        {"name": "fixed", "bits": 8, "fraction_bits": 3},
        {"name": "fixed", "bits": 8, "fraction_bits": 3, "signed": 1},
        {"name": "fixed", "bits": 8, "fraction_bits": 3, "signed": "true"},
        {"name": "fixed", "bits": 8.0, "fraction_bits": 3, "signed": True},
        {"name": "fixed", "bits": 8, "fraction_bits": True, "signed": True},
        {"name": "fixed", "bits": 8, "fraction_bits": "3", "signed": True},
        {"name": "affine", "bits": 8, "scale": 0.5, "zero_point": 0},
        {"name": "affine", "bits": 8, "scale": "0.5", "zero_point": 0, "signed": True},
        {"name": "affine", "bits": 8, "scale": True, "zero_point": 0, "signed": True},
        {"name": "affine", "bits": 8, "scale": 10**400, "zero_point": 0, "signed": True},
        {"name": "affine", "bits": 8, "scale": math.inf, "zero_point": 0, "signed": True},
        {"name": "affine", "bits": 8, "scale": math.nan, "zero_point": 0, "signed": True},
        {"name": "affine", "bits": 8, "scale": [0.5, None], "zero_point": 0, "signed": True},
        {"name": "affine", "bits": 8, "scale": [[0.5]], "zero_point": 0, "signed": True},
        {"name": "affine", "bits": 8, "scale": 0.5, "zero_point": 1.0, "signed": True},
        {"name": "sign"},
        {"name": "sign", "word": 1, "signed": 1},
        {"name": "sign", "word": 1.0},
        {"name": "sign", "word": "1"},
        {"name": "sign", "word": [1]},
        {"name": "sign", "word": True},
    ],
    ids=str,
)
def test_json_of_no_format_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(
        InvalidArgument, match="number format: expected one of float32, bfloat16, int64, int32, .*, fixed, affine, sign"
    ):
        number_format_from_json(data)


def test_reading_json_leaves_it_as_it_is() -> None:
    data = {"name": "sign", "word": 1}
    number_format_from_json(data)
    assert data == {"name": "sign", "word": 1}
