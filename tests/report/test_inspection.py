"""What an inspection says of a network: types, bytes, memory, and figures worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from netopt.errors import InvalidArgument
from netopt.report.inspection import Inspection, decibels_text, inspect_network, share_text
from tests.report.code_network import code_network

# The second row saturates x at 127/16 = 7.9375, and leaves hidden at 1.984375 + 0.5 + 1 and at 0.
DATA = torch.tensor([[1.0, 2.0, 0.0], [100.0, 1.0, -1.0], [0.0, 0.0, 0.0], [0.03, 0.0, 0.0], [9.0, 9.0, 9.0]])


def test_types_bytes_and_memory() -> None:
    network = code_network()
    inspection = inspect_network(network)
    x, hidden, y = inspection.steps
    assert (x.op, x.value, x.type, x.position, x.bytes) == ("input", "x", "FIXED8_4", "4", 6)
    assert (hidden.op, hidden.layer, hidden.type) == ("dense + relu", "fc1", "UFIXED8_2")
    assert (hidden.position, hidden.bytes, hidden.shape) == ("2", 4, (2, 2))
    assert (y.type, y.position, y.bytes, y.layer) == ("FLOAT32", "", 8, "fc2")
    assert [step.arena_bytes for step in inspection.steps] == [64, 128, 128]
    assert [step.offset for step in inspection.steps] == [network.plan.offsets[n] for n in ("x", "hidden", "y")]
    assert (inspection.arena_bytes, inspection.lower_bound) == (network.plan.arena_bytes, network.plan.lower_bound)
    assert inspection.constant_bytes == 6 + 8
    assert inspection.runs == 0 and not inspection.notes
    assert x.range is x.saturated is x.sqnr_db is x.histogram is None


def test_constants() -> None:
    _, hidden, y = inspect_network(code_network()).steps
    (weight,), (last,) = hidden.constants, y.constants
    assert (weight.name, weight.type, weight.position) == ("fc1.weight", "FIXED8", "5 to 6")
    assert (weight.shape, weight.bytes) == ((2, 3), 6)
    assert weight.histogram is not None and sum(weight.histogram.after) == 6
    assert (last.type, last.histogram) == ("FLOAT32", None)


def test_figures_on_data() -> None:
    inspection = inspect_network(code_network(), [DATA])
    x, hidden, y = inspection.steps
    assert inspection.runs == 2
    assert inspection.notes == ("left out, since the network takes a fixed number at a time: the last 1 inputs",)
    assert x.range == (-1.0, 100.0)
    assert x.saturated == 1 / 12
    # 100 becomes 7.9375 and 0.03 becomes 0; all else is exact. In float32, which is what the data are.
    low = float(torch.tensor(0.03).double())
    assert x.sqnr_db == pytest.approx(
        10 * math.log10((1 + 4 + 1e4 + 1 + 1 + low**2) / ((100 - 7.9375) ** 2 + low**2)), rel=1e-12
    )
    # Row 1: 1 + 1 and 0.25 + 1; row 2: 7.9375 + 0.5 + 1 and 1.984375 + 0.5 - 1; zeros.
    before = [2.0, 1.25, 9.4375, 1.484375]
    after = [2.0, 1.25, 9.5, 1.5]
    assert hidden.range == (0.0, 9.4375)
    assert hidden.saturated == 0.0
    noise = sum((a - b) ** 2 for a, b in zip(before, after, strict=True))
    assert hidden.sqnr_db == pytest.approx(10 * math.log10(sum(b * b for b in before) / noise), rel=1e-12)
    assert hidden.histogram is not None
    assert sum(hidden.histogram.before) == sum(hidden.histogram.after) == 8
    assert y.range == (0.0, 12.5)
    assert y.saturated is y.sqnr_db is y.histogram is None


def test_as_text() -> None:
    text = str(inspect_network(code_network(), [DATA]))
    lines = text.splitlines()
    assert "smallest" in lines[0] and "SQNR dB" in lines[0]
    assert "8.333 %" in lines[2] and "FIXED8_4" in lines[2]
    assert lines[-2] == "arena 128 bytes (lower bound 128), constants 14 bytes"
    assert lines[-1].startswith("left out")
    plain = str(inspect_network(code_network())).splitlines()
    assert "saturated" not in plain[0]
    assert "FIXED8 5 to 6" in plain[3]


def test_as_json() -> None:
    data = json.loads(json.dumps(inspect_network(code_network(), [DATA[:2]]).to_json(), allow_nan=False))
    assert data["arena_bytes"] == 128
    assert [step["value"] for step in data["steps"]] == ["x", "hidden", "y"]
    assert data["steps"][0]["saturated"] == 1 / 6
    assert data["steps"][1]["constants"][0]["position"] == "5 to 6"
    exact = inspect_network(code_network(), [torch.zeros(2, 3)])
    assert exact.steps[0].sqnr_db == math.inf
    assert exact.to_json()["steps"][0]["sqnr_db"] is None


def test_data_that_do_not_fit() -> None:
    with pytest.raises(InvalidArgument, match="input 'x'"):
        inspect_network(code_network(), [torch.zeros(2, 4)])


def test_figures_as_text() -> None:
    assert [share_text(share) for share in (None, 0.0, 0.12345)] == ["", "0.000 %", "12.345 %"]
    assert [decibels_text(db) for db in (None, 12.345, math.inf, -math.inf)] == ["", "12.3", "exact", "lost"]


def test_an_empty_network_has_a_table() -> None:
    assert "arena 0 bytes" in str(Inspection((), 0, 0, 0))
