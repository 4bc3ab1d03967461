"""The report of a quantized network: formats, what computes in floats, saturation and signal to noise."""

from __future__ import annotations

import math

import pytest
import torch

import netopt
from netopt.numerics import FLOAT32, Affine, FixedPoint, NumberFormat
from netopt.quantized.report import format_text, report_on, sqnr
from tests.quantized.networks import make


def test_a_row_for_each_op() -> None:
    model, x = make("attention")
    network = netopt.quantize(model, calibration=x)
    report = network.report
    assert report is not None
    assert [row.value for row in report.rows] == [node.output for node in network.example_graph.nodes]
    by_op = {row.op: row for row in report.rows}
    assert not by_op["softmax"].is_integer and by_op["softmax"].writes == "FLOAT32"
    dense = by_op["dense"]
    assert dense.reads.startswith("FIXED8_") and dense.weight.startswith("FIXED8_")
    assert dense.weight_sqnr_db is not None and 30 < dense.weight_sqnr_db < 60
    assert by_op["softmax"].value in report.float_steps
    text = str(report)
    assert "ops compute on codes alone; the others in float32" in text and "SQNR dB" in text


def test_what_is_beyond_the_codes_is_saturated() -> None:
    model, x = make("residual")
    network = netopt.quantize(model, calibration=x)
    row = report_on(network, 40 * x).rows[0]
    assert row.saturated > 0.05
    assert report_on(network, x).rows[0].saturated < 0.01


def test_signal_to_noise() -> None:
    x = torch.tensor([3.0, 4.0])
    assert sqnr(x, torch.tensor([3.0, 4.5])) == pytest.approx(20.0)
    assert sqnr(x, x) == math.inf
    assert sqnr(torch.zeros(2), x) == -math.inf


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        (None, "FLOAT32"),
        (FLOAT32, "FLOAT32"),
        (FixedPoint(8, 5), "FIXED8_5"),
        (FixedPoint(8, (5, 7)), "FIXED8_5..7"),
        (FixedPoint(7, 3, signed=False), "UFIXED7_3"),
        (Affine(8, 0.5), "AFFINE8 0.5"),
        (Affine(8, (0.5, 0.25)), "AFFINE8"),
    ],
)
def test_formats_as_tables_show_them(format_: NumberFormat | None, text: str) -> None:
    assert format_text(format_) == text
