"""A whole network before and after, and what was to be expected."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import pytest
import torch
from torch import nn

import netopt
from netopt.factorization import SVD
from netopt.program.options import Lowering
from netopt.search import whole
from netopt.search.whole import WholeNetwork
from netopt.timing import Timing
from netopt.transform.cost import Cost
from netopt.transform.layer_report import LayerReport, NetworkTimes, Outlook
from netopt.transform.policy import Verdict
from tests.search.test_measure import OPTIONS, Sorted


@pytest.fixture
def one_and_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each measurement the first takes 4 ms and the second 3 ms."""

    def interleaved(calls: Mapping[str, object], **_: object) -> dict[str, Timing]:
        return {name: Timing(4.0 - index, 0, 0, 1) for index, name in enumerate(calls)}

    monkeypatch.setattr(whole, "interleaved", interleaved)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.dense(x) + y


@pytest.mark.parametrize("by_name", [False, True])
def test_a_network_with_several_arguments(by_name: bool) -> None:
    x, y = torch.zeros(1, 4), torch.zeros(1, 3)
    found = WholeNetwork.of(Two(), {"x": x, "y": y} if by_name else (x, y), OPTIONS)
    assert found is not None
    times = found.times(Two())
    assert times is not None
    assert times.before_ms > 0
    assert times.after_ms > 0


def test_a_network_that_cannot_be_lowered(one_and_two: None) -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), Sorted()), torch.zeros(1, 4)
    assert WholeNetwork.of(model, x, OPTIONS) is None
    assert WholeNetwork.of(nn.Linear(4, 4).double(), x.double(), OPTIONS) is None
    found = WholeNetwork.of(model, x, Lowering(fallback=True))
    assert found is not None
    assert found.times(model) == NetworkTimes(4.0, 3.0)
    found = WholeNetwork.of(nn.Linear(4, 4), x, OPTIONS)
    assert found is not None
    assert found.times(model) is None
    assert found.times(nn.Linear(4, 4).double()) is None


def test_shares_of_layers() -> None:
    """Of 0.27 million multiply-adds, 1.5 % are in the second; what is fused into a layer is in its share."""
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 8))
    found = WholeNetwork.of(model, torch.zeros(1, 512), OPTIONS)
    assert found is not None
    assert sum(found.shares.values()) == pytest.approx(1)
    assert set(found.shares) == {"0", "2"}
    assert found.shares["0"] > 0.5


def row(layer: str, replaced: bool, before: int, after: int, ms: tuple[float, float] | None = None) -> LayerReport:
    costs = Cost(before, before), Cost(after, after)
    times = {} if ms is None else {"before_ms": ms[0], "after_ms": ms[1]}
    return LayerReport(layer, "Linear", "SVD", replaced, "", costs[0], costs[1] if replaced else costs[0], **times)


def test_what_is_to_be_expected() -> None:
    """Of 120 multiply-adds 40 are saved; of the time, 0.5 * 0.75 + 0.1 * 0.5."""
    program = netopt.lower(nn.Sequential(nn.Linear(10, 6, bias=False), nn.Linear(6, 10)), torch.zeros(1, 10))
    shares = {"a": 0.5, "b.0": 0.04, "b.1": 0.06, "c": 0.3, "": 0.1}
    network = WholeNetwork(program, torch.zeros(1, 10), OPTIONS, shares)
    rows = (
        row("a", True, 60, 30, (2.0, 0.5)),
        row("b", True, 40, 30, (3.0, 1.5)),
        row("c", False, 20, 20, (1.0, 2.0)),
    )
    outlook = network.outlook(rows)
    assert outlook.candidates == pytest.approx(0.9)
    assert outlook.replaced == pytest.approx(0.6)
    assert outlook.at_most == pytest.approx(2.5)
    assert outlook.by_times == pytest.approx(1 / (1 - 0.425))
    assert outlook.by_multiply_adds == pytest.approx(1.5)
    assert network.outlook(rows[2:]) == Outlook(pytest.approx(0.3), 0.0, 1.0, 1.0)
    assert network.outlook(()) == Outlook(0.0, 0.0, 1.0, 1.0)


def test_the_report_of_a_network_tells_it_before_the_measured_time(
    one_and_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("netopt.verbs.optimize"), "FasterBy", lambda **_: _agree)
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 8))
    report = netopt.optimize(model, SVD(rank=8, select="0"), example=torch.zeros(1, 512)).report
    assert report.outlook is not None
    assert report.outlook.candidates == pytest.approx(1)
    assert 1 > report.outlook.replaced > 0.5
    assert report.outlook.by_times == pytest.approx(1 / (1 - 0.75 * report.outlook.replaced))
    assert report.outlook.by_multiply_adds == pytest.approx((512 * 520) / (8 * 1024 + 512 * 8))
    lines = str(report).splitlines()
    assert lines[-3].startswith("candidate layers take ")
    assert lines[-2].startswith("expected: ")
    assert lines[-1] == "whole network, lowered: 4.0000 ms -> 3.0000 ms, 1.33 times faster"


def test_where_nothing_is_replaced_the_report_still_says_what_was_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    monkeypatch.setattr(importlib.import_module("netopt.verbs.optimize"), "FasterBy", lambda **_: _refuse)
    report = netopt.optimize(model, SVD(rank=2), example=torch.zeros(1, 64)).report
    assert report.network is None
    assert report.outlook == Outlook(pytest.approx(1.0), 0.0, 1.0, 1.0)


def _agree(_: object) -> Verdict:
    return Verdict(True, "", 2.0, 0.5)


def _refuse(_: object) -> Verdict:
    return Verdict(False, "slow")
