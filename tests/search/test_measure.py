"""Verdicts by time. Only cases whose truth is certain are timed; the rest is decided before, or by a fixed margin."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt import console
from netopt.console import progress
from netopt.program.options import Lowering
from netopt.search import measure
from netopt.search.measure import FasterBy, StepsOf
from netopt.timing import Timing
from netopt.transform.candidate import Replacement
from netopt.transform.policy import Verdict
from netopt.transform.select import Layer, layers_of

OPTIONS = Lowering()


def handle(module: nn.Module, *shapes: tuple[int, ...]) -> Layer:
    return Layer("layer", module, False, False, tuple(torch.Size(shape) for shape in shapes))


def judged(judge: FasterBy, layer: Layer, new: nn.Module) -> Verdict:
    """The verdict on one layer, whose replacement is given what it is given."""
    return judge([Replacement(layer, new, layer.input_shapes)])


def thin(size: int, rank: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, rank, bias=False), nn.Linear(rank, size))


@pytest.fixture
def one_and_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each measurement the first takes 4 ms and the second 3 ms."""

    def interleaved(calls: Mapping[str, object], **_: object) -> dict[str, Timing]:
        for call in calls.values():
            if isinstance(call, StepsOf):
                assert len(call.times(2)) == 2
        return {name: Timing(4.0 - index, 0, 0, 1) for index, name in enumerate(calls)}

    monkeypatch.setattr(measure, "interleaved", interleaved)


def test_a_thin_replacement_of_a_large_layer_is_faster() -> None:
    """Of 4 million multiply-adds 1.6 % are left."""
    verdict = judged(FasterBy(margin=0.05, options=OPTIONS), handle(nn.Linear(2048, 2048), (1, 2048)), thin(2048, 16))
    assert verdict.keeps
    assert verdict.reason == ""
    assert verdict.before_ms is not None
    assert verdict.after_ms is not None
    assert 0 < verdict.after_ms < verdict.before_ms


def test_a_replacement_that_does_everything_twice_is_not() -> None:
    layer = nn.Linear(1024, 1024)
    twice = nn.Sequential(layer, copy.deepcopy(layer))
    verdict = judged(FasterBy(margin=0.05, options=OPTIONS), handle(layer, (1, 1024)), twice)
    assert not verdict.keeps
    assert verdict.reason == "not faster by 5%"
    assert verdict.before_ms is not None
    assert verdict.after_ms is not None
    assert verdict.after_ms > verdict.before_ms > 0


@pytest.mark.parametrize(("margin", "keeps"), [(0.0, True), (0.25, True), (0.26, False), (0.5, False)])
def test_margin(one_and_two: None, margin: float, keeps: bool) -> None:
    verdict = judged(FasterBy(margin=margin, options=OPTIONS), handle(nn.Linear(4, 4), (1, 4)), thin(4, 1))
    assert (verdict.before_ms, verdict.after_ms) == (4.0, 3.0)
    assert verdict.keeps is keeps
    assert verdict.reason == ("" if keeps else f"not faster by {margin:.0%}")


def test_calls_of_a_layer_add_up(one_and_two: None) -> None:
    layer = handle(nn.Linear(4, 4), (1, 4), (3, 4), (1, 4))
    verdict = judged(FasterBy(margin=0.05, options=OPTIONS), layer, thin(4, 1))
    assert (verdict.before_ms, verdict.after_ms) == (12.0, 9.0)


def test_a_layer_that_is_not_called() -> None:
    verdict = judged(FasterBy(margin=0.05, options=OPTIONS), handle(nn.Linear(4, 4)), thin(4, 1))
    assert (verdict.keeps, verdict.before_ms, verdict.after_ms) == (False, None, None)
    assert verdict.reason == "is not called for the example with one tensor, so that its time is not known"


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x.kthvalue(1).values


def test_a_replacement_that_cannot_be_lowered() -> None:
    verdict = judged(FasterBy(margin=0.05, options=OPTIONS), handle(nn.Linear(4, 4), (1, 4)), Sorted())
    assert (verdict.keeps, verdict.before_ms, verdict.after_ms) == (False, None, None)
    assert verdict.reason.startswith("cannot be lowered: ")
    assert "kthvalue" in verdict.reason
    assert "\n" not in verdict.reason


def test_wrong_options_are_errors_and_no_reasons() -> None:
    with pytest.raises(netopt.InvalidArgument, match="precision"):
        judged(
            FasterBy(margin=0.05, options=Lowering(precision="fp8")),  # type: ignore[arg-type]
            handle(nn.Linear(4, 4), (1, 4)),
            thin(4, 1),
        )


def test_layers_of_other_types_are_measured_as_they_will_be_lowered(one_and_two: None) -> None:
    layer = nn.Linear(4, 4).double()
    assert judged(FasterBy(margin=0.05, options=OPTIONS), handle(layer, (1, 4)), thin(4, 1).bfloat16()).keeps
    assert layer.weight.dtype is torch.float64


def test_a_replacement_without_parameters(one_and_two: None) -> None:
    assert judged(FasterBy(margin=0.05, options=OPTIONS), handle(nn.Linear(4, 4), (1, 4)), nn.ReLU()).keeps


def test_measuring_draws_no_random_numbers(one_and_two: None) -> None:
    layer, state = nn.Linear(4, 4), torch.get_rng_state()
    judged(FasterBy(margin=0.05, options=OPTIONS), handle(layer, (1, 4)), nn.ReLU())
    assert torch.equal(torch.get_rng_state(), state)


def test_steps_are_timed_but_for_changes_of_layout() -> None:
    """Where a vector is made from an image, its layout is changed first."""
    model, x = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Flatten()), torch.randn(1, 8, 6, 6)
    program = netopt.lower(model, x)
    steps = StepsOf(program, (x,))
    kinds = [type(step.op).__name__ for step in program.steps]
    assert "Relayout" in kinds
    assert steps._counted == [kind != "Relayout" for kind in kinds]
    assert all(seconds > 0 for seconds in steps.times(3))


def measurements(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Fills with the times of all measurements: the first is of 8 and 4 ms, the next of 7 and 3.5, and so on."""
    done: list[float] = []

    def interleaved(calls: Mapping[str, object], **_: object) -> dict[str, Timing]:
        done.append(8.0 - len(done))
        return {name: Timing(done[-1] / (1 + index), 0, 0, 1) for index, name in enumerate(calls)}

    monkeypatch.setattr(measure, "interleaved", interleaved)
    return done


def test_layers_that_are_alike_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done, judge = measurements(monkeypatch), FasterBy(margin=0.05, options=OPTIONS)
    first = judged(judge, handle(nn.Linear(8, 8), (1, 8)), thin(8, 2))
    assert (first.before_ms, first.after_ms) == (8.0, 4.0)
    assert judged(judge, handle(nn.Linear(8, 8), (1, 8)), thin(8, 2)) == first
    assert len(done) == 1
    for shape in ((2, 8), (1, 8)):
        judged(judge, handle(nn.Linear(8, 8), shape, (2, 8)), thin(8, 2))
    assert len(done) == 2
    judged(FasterBy(margin=0.05, options=OPTIONS), handle(nn.Linear(8, 8), (1, 8)), thin(8, 2))
    assert len(done) == 3


def test_a_layer_has_one_time_whatever_it_is_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second measurement says 7 ms and 3.5; of the replacement the ratio counts."""
    done, judge = measurements(monkeypatch), FasterBy(margin=0.05, options=OPTIONS)
    times = [judged(judge, handle(nn.Linear(8, 8), (1, 8)), thin(8, rank)) for rank in (2, 3, 2)]
    assert [(verdict.before_ms, verdict.after_ms) for verdict in times] == [(8.0, 4.0)] * 3
    assert done == [8.0, 7.0]


def test_what_cannot_be_compared_is_measured_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    done, judge = measurements(monkeypatch), FasterBy(margin=0.05, options=OPTIONS)

    class Odd(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.other = object()

    for _ in range(2):
        judged(judge, handle(Odd(), (1, 4)), thin(4, 1))
    assert done == [8.0, 7.0]
    assert judge.known == measure.Known()


def test_what_cannot_be_lowered_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered, real = [], measure.lower_as

    def lower_as(module: nn.Module, *rest: Any) -> Any:
        lowered.append(type(module).__name__)
        return real(module, *rest)

    monkeypatch.setattr(measure, "lower_as", lower_as)
    judge = FasterBy(margin=0.05, options=OPTIONS)
    verdicts = [judged(judge, handle(nn.Linear(4, 4), (1, 4)), Sorted()) for _ in range(3)]
    assert lowered == ["Linear", "Sorted"]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert "kthvalue" in verdicts[2].reason


def test_the_progress_bar_says_what_is_done(one_and_two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    real = console.Bar.update

    def update(bar: console.Bar, **what: Any) -> None:
        said.append(what.get("description"))
        real(bar, **what)

    monkeypatch.setattr(console.Bar, "update", update)
    with progress("decompose 3.conv", 58):
        judged(FasterBy(margin=0.05, options=OPTIONS), handle(nn.Linear(4, 4), (1, 4)), thin(4, 1))
    assert [text for text in said if ":" in text] == [
        "decompose 3.conv: lowering it alone",
        "decompose 3.conv: timing it",
    ]
    assert said[-1] == "decompose 3.conv"


def test_handles_have_the_shapes_that_are_measured() -> None:
    (layer,) = layers_of(nn.Linear(4, 4))
    assert layer.input_shapes == ()
