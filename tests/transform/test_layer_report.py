"""What a user reads of a transformed network."""

from __future__ import annotations

import math

import pytest

from netopt.transform.cost import Cost
from netopt.transform.layer_report import LayerReport, NetworkTimes, Outlook, Report


def row(layer: str, replaced: bool, **more: float) -> LayerReport:
    before = Cost(1234, 5678)
    return LayerReport(layer, "Linear", "SVD", replaced, "why", before, Cost(12, 34) if replaced else before, **more)


def words(line: str) -> list[str]:
    return line.split()


COLUMNS = ["layer", "type", "technique", "replaced", "note", "parameters", "->", "multiply-adds", "->"]


def test_a_row_for_each_layer_and_the_count() -> None:
    header, _, *lines = str(Report((row("a.b", True), row("", False)))).splitlines()
    assert words(header) == COLUMNS
    assert words(lines[0]) == ["a.b", "Linear", "SVD", "yes", "why", "1,234", "12", "5,678", "34"]
    assert words(lines[1]) == ["(the", "model)", "Linear", "SVD", "no", "why", "1,234", "1,234", "5,678", "5,678"]
    assert lines[2:] == ["1 of 2 candidate layers replaced"]


def test_no_rows() -> None:
    lines = str(Report(())).splitlines()
    assert words(lines[0]) == COLUMNS
    assert lines[-1] == "0 of 0 candidate layers replaced"


def test_errors() -> None:
    header, _, first, second, _ = str(Report((row("a", True, error=0.12345), row("b", False)))).splitlines()
    assert words(header) == [*COLUMNS, "error"]
    assert words(first)[-1] == "0.123"
    assert words(second)[-1] == "5,678"


def test_times_of_layers() -> None:
    report = Report((row("a", True, before_ms=1.5, after_ms=0.25, error=0.0), row("b", False)))
    header, _, first, second, _ = str(report).splitlines()
    assert words(header) == [*COLUMNS, "error", "ms", "->"]
    assert words(first)[-3:] == ["0.000", "1.5000", "0.2500"]
    assert words(second)[-1] == "5,678"


@pytest.mark.parametrize(
    ("before", "after", "change"), [(3.0, 1.5, "2.00 times faster"), (1.0, 4.0, "4.00 times slower")]
)
def test_times_of_the_network(before: float, after: float, change: str) -> None:
    last = str(Report((row("a", True),), NetworkTimes(before, after))).splitlines()[-1]
    assert last == f"whole network, lowered: {before:.4f} ms -> {after:.4f} ms, {change}"


def test_what_was_to_be_had_of_the_network_stands_before_its_times() -> None:
    outlook = Outlook(0.9, 0.75, 1.5, 2.0)
    lines = str(Report((row("a", True),), NetworkTimes(3.0, 2.0), outlook)).splitlines()
    assert lines[-3:-1] == [
        "candidate layers take 90% of the network's time, the replaced ones 75%: at most 4.00 times faster",
        "expected: 1.50 times faster by the times of layers, 2.00 times by multiply-adds",
    ]
    assert lines[-1].startswith("whole network, lowered: ")
    assert Outlook(1.0, 1.0, 1.5, 2.0).at_most == math.inf
    assert (Report((), None, outlook) + Report(())).outlook is outlook
    assert Report((row("a", True),), None, outlook).undone().outlook is outlook


def test_reports_add_up() -> None:
    times = NetworkTimes(2.0, 1.0)
    both = Report((row("a", True),)) + Report((row("b", False),), times)
    assert [each.layer for each in both.rows] == ["a", "b"]
    assert both.network is times
    assert (both + Report(())).network is times
