"""What became of variables, and warnings about positions that do not fit what was seen."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from netopt.numerics import FixedPoint
from netopt.quantization.fixed_point.quantizer import Quantizer
from netopt.quantized.network import QuantizedNetwork
from netopt.quantized.types import TypeWish, parse_type
from netopt.report.variables import VariableReport, largest_n, report_variables

X = torch.tensor([[1.0, 2.0], [0.0, -3.25]])


def _network(**formats: FixedPoint) -> QuantizedNetwork:
    """input (1, 2) -> linear (1, 2): a dense layer with the rows (0.5, 0.25) and (3, 0)."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5, 0.25], [3.0, 0.0]]))
    network = QuantizedNetwork(model, X[:1])
    for name, format_ in formats.items():
        network.round_to((name.replace("__", "."),), Quantizer.of(format_, learned=False))
    return network


def _report(wishes: dict[str, str], **formats: FixedPoint) -> VariableReport:
    network = _network(**formats)
    return report_variables(network, {name: parse_type(text) for name, text in wishes.items()}, [X[:1], X[1:]])


def test_rows() -> None:
    report = _report(
        {"input": "FIXED8", "0.weight": "FIXED8_6"}, input=FixedPoint(8, 0), **{"0__weight": FixedPoint(8, 6)}
    )
    x, weight, y = report.rows
    assert (x.variable.name, x.variable.kind, x.variable.type, x.wish) == ("input", "input", "FIXED8_0", "FIXED8")
    assert (x.bytes, x.range, x.saturated) == (2, (-3.25, 2.0), 0.0)
    # Of 1, 2, 0 and -3.25 the last becomes -3.
    assert x.sqnr_db == pytest.approx(10 * math.log10((1 + 4 + 3.25**2) / 0.25**2))
    assert (weight.variable.type, weight.bytes, weight.range) == ("FIXED8_6", 4, (0.0, 3.0))
    # 3 is beyond 127/64.
    assert weight.saturated == 1 / 4
    assert weight.sqnr_db == pytest.approx(10 * math.log10((0.25 + 0.0625 + 9) / (3 - 127 / 64) ** 2))
    assert (y.variable.type, y.wish, y.saturated, y.sqnr_db) == ("FLOAT32", "", None, None)
    assert report.placed({"input": parse_type("FIXED8"), "0.weight": parse_type("FIXED8_6")}) == {"input": "FIXED8_0"}


def test_as_text() -> None:
    lines = str(_report({"input": "FIXED8"}, input=FixedPoint(8, 0))).splitlines()
    assert lines[0].split() == [
        "variable",
        "kind",
        "shape",
        "wish",
        "type",
        "position",
        "bytes",
        "saturated",
        "SQNR",
        "dB",
    ]
    assert lines[2].split() == ["input", "input", "1x2", "FIXED8", "FIXED8_0", "0", "2", "0.000", "%", "24.0"]
    assert lines[3].split() == ["0.weight", "parameter", "2x2", "FLOAT32", "16"]


def test_a_position_that_saturates_is_told_with_the_share_and_one_that_fits() -> None:
    wish = parse_type("FIXED8_6")
    _, weight, _ = _report({"0.weight": "FIXED8_6"}, **{"0__weight": FixedPoint(8, (6, 6))}).rows
    assert weight.warning(wish) == (
        "FIXED8_6 holds -2 to 1.984: 25.00 % of the numbers are saturated; they lie between 0 and 3, which n = 5 holds"
    )


def test_steps_that_are_too_wide_are_told() -> None:
    x, *_ = _report({"input": "FIXED8_-4"}, input=FixedPoint(8, -4)).rows
    assert x.warning(parse_type("FIXED8_-4")) == (
        "FIXED8_-4 has steps of 16, too wide: signal to noise is 0.0 dB; "
        "they lie between -3.25 and 2, which n = 5 holds"
    )
    fine, *_ = _report({"input": "FIXED8_0"}, input=FixedPoint(8, 0)).rows
    assert fine.warning(parse_type("FIXED8_0")) is None


@pytest.mark.parametrize("wish", ["FIXED8", "FLOAT32", "FIXED8_5"])
def test_no_warning_where_all_is_well_or_nothing_was_given(wish: str) -> None:
    x, *_ = _report({"input": wish}, input=FixedPoint(8, 5)).rows
    assert x.warning(parse_type(wish)) is None


def test_nothing_seen_is_no_warning() -> None:
    network = _network(input=FixedPoint(8, 5))
    x, *_ = report_variables(network, {"input": parse_type("FIXED8_5")}, []).rows
    assert x.range is None
    assert x.warning(parse_type("FIXED8_5")) is None


@pytest.mark.parametrize(
    ("wish", "low", "high", "n"),
    [
        ("FIXED8", -1.0, 0.99, 7),
        ("FIXED8", -1.0, 1.0, 6),
        ("FIXED8", -128.5, 127.49, 0),
        ("FIXED8", -128.51, 0.0, -1),
        ("UFIXED8", 0.0, 1.0, 7),
        ("UFIXED7", 0.0, 0.99, 7),
        ("FIXED16", -1.0, 0.0, 15),
        ("FIXED8", 0.0, 1e-40, 125),
        ("FIXED8", 0.0, 3e38, -112),
    ],
)
def test_the_largest_position_that_holds_a_range(wish: str, low: float, high: float, n: int) -> None:
    assert largest_n(parse_type(wish), low, high) == n


def test_wishes_are_those_of_names_that_there_are() -> None:
    report = _report({})
    assert report.placed({"other": TypeWish(kind="fixed", bits=8)}) == {}
