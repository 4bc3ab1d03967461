"""Profiles: a row for each step that runs, with the program's own figures; profiling changes no results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt import zoo
from netopt.program.program import Program
from netopt.report import profile
from tests.networks import NETWORKS, TwoInputs


def of(name: str) -> tuple[Program, tuple[torch.Tensor, ...]]:
    model, example = NETWORKS[name]()
    return netopt.lower(model, example), example if isinstance(example, tuple) else (example,)


def winograd() -> tuple[Program, tuple[torch.Tensor, ...]]:
    """A step of several calls."""
    x = torch.randn(1, 64, 16, 16)
    return netopt.lower(nn.Conv2d(64, 64, 3, padding=1), x, exact=False), (x,)


class Summed(nn.Module):
    """A part in PyTorch between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(self.up(x).relu().logcumsumexp(1))
        return y


def in_parts() -> tuple[Program, tuple[torch.Tensor, ...]]:
    x = torch.randn(3, 8)
    return netopt.lower(Summed(), x, fallback=True), (x,)


PROGRAMS = {**{name: lambda name=name: of(name) for name in NETWORKS}, "winograd": winograd, "in parts": in_parts}


@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_are_the_steps_of_the_summary_that_run(name: str) -> None:
    program, inputs = PROGRAMS[name]()
    result = profile(program, *inputs, rounds=1)
    assert [row.index for row in result.rows] == [index for index, step in enumerate(program.steps) if step.runs]
    assert sum(row.multiply_adds for row in result.rows) == program.multiply_adds
    assert sum(row.share for row in result.rows) == pytest.approx(1)
    assert sum(row.ms for row in result.rows) == pytest.approx(result.steps_ms)
    lines = [line for line in program.summary().splitlines()[2:] if line.startswith(" ")]
    ran = [line for line in lines if "a view, no code" not in line]
    printed = [line for line in str(result).splitlines()[2:] if line.startswith(" ")]
    assert len(printed) == len(ran) == len(result.rows)
    for row, summary, own in zip(result.rows, ran, printed, strict=True):
        assert all(text in line for line in (summary, own) for text in (row.op, row.layer, row.step.how))


@pytest.mark.parametrize("name", ["images", "winograd", "in parts"])
def test_results_are_those_of_a_call(name: str) -> None:
    program, inputs = PROGRAMS[name]()
    expected = program(*inputs)
    seen: list[int] = []

    def watch(index: int, run: Any) -> None:
        seen.append(index)
        run()

    assert torch.equal(program.call_by_steps(watch, *inputs), expected)
    assert seen == [index for index, step in enumerate(program.steps) if step.runs]
    profile(program, *inputs, rounds=2)
    assert torch.equal(program(*inputs), expected)


def test_steps_of_several_calls_and_parts_in_pytorch_are_one_row_each() -> None:
    program, inputs = winograd()
    (row,) = profile(program, *inputs, rounds=1).rows
    assert row.op.startswith("winograd2d")
    program, inputs = in_parts()
    rows = profile(program, *inputs, rounds=1).rows
    assert [row.step.how == "runs in PyTorch" for row in rows] == [False, True, False]


def test_figures_of_a_row() -> None:
    program = netopt.lower(nn.Linear(20, 30), torch.randn(2, 20))
    (row,) = profile(program, torch.randn(2, 20), rounds=3).rows
    assert (row.op, row.layer, row.multiply_adds) == ("dense", "", 2 * 20 * 30)
    assert row.bytes == 4 * (2 * 20 + 20 * 30 + 30 + 2 * 30)
    assert row.time.samples == 3
    assert row.gmacs == pytest.approx(1200 / (row.ms * 1e-3) / 1e9)
    assert row.gbytes_per_second == pytest.approx(row.bytes / (row.ms * 1e-3) / 1e9)


def test_worst_first() -> None:
    program = netopt.lower(zoo.lenet5(), torch.randn(1, 1, 28, 28))
    result = profile(program, torch.randn(1, 1, 28, 28), rounds=3)
    times = [row.ms for row in result.worst().rows]
    assert times == sorted((row.ms for row in result.rows), reverse=True)
    assert result.worst(2).rows == result.worst().rows[:2]
    assert result.worst(2).steps_ms == result.steps_ms
    for number in (0, -1, True, 1.5):
        with pytest.raises(netopt.InvalidArgument, match="number: expected an integer of at least 1"):
            result.worst(number)  # type: ignore[arg-type]


def test_denormals_are_flushed_as_in_calls() -> None:
    program = netopt.lower(nn.Sequential(nn.Flatten(), nn.LeakyReLU(0.5)), torch.zeros(1, 4))
    x = torch.full((1, 4), -(2.0**-126))
    assert torch.equal(program.call_by_steps(lambda _, run: run(), x), program(x))
    assert (x * 0.5).any()  # and only there


def test_programs_that_run_nothing() -> None:
    program = netopt.lower(nn.Flatten(), torch.zeros(1, 2, 2))
    result = profile(program, torch.zeros(1, 2, 2), rounds=1)
    assert (result.rows, result.steps_ms) == ((), 0)
    assert "all steps 0.0000 ms" in str(result)


def test_inputs_by_name() -> None:
    example = {"a": torch.randn(2, 5), "b": torch.randn(2, 5)}
    assert len(profile(netopt.lower(TwoInputs(), example), example, rounds=1).rows) > 0


def test_wrong_arguments() -> None:
    program, x = netopt.lower(nn.Linear(3, 2), torch.randn(1, 3)), torch.randn(1, 3)
    with pytest.raises(netopt.InvalidArgument, match=r"expected shape \(1, 3\), found \(2, 3\)"):
        profile(program, torch.randn(2, 3))
    with pytest.raises(netopt.InvalidType, match="expected dtype torch.float32"):
        profile(program, x.double())
    with pytest.raises(netopt.InvalidArgument):
        profile(program)
    with pytest.raises(netopt.InvalidType, match="program: expected a Program, .* found Linear"):
        profile(nn.Linear(3, 2), x)  # type: ignore[arg-type]
    for rounds in (0, True, 2.0):
        with pytest.raises(netopt.InvalidArgument, match="rounds: expected an integer of at least 1"):
            profile(program, x, rounds=rounds)  # type: ignore[arg-type]
