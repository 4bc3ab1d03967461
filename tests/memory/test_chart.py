"""The chart: what it shows, in what room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import netopt
from netopt import zoo
from netopt.memory import MemoryPlan
from netopt.memory.chart import Stay, Timeline, draw
from netopt.program.file import read_network
from netopt.program.lower import prepare
from netopt.program.options import Lowering

TIMELINE = Timeline(
    (Stay(("x", "flat"), 0, 128, 0, 1), Stay(("y",), 128, 64, 1, 3), Stay(("z",), 0, 1024, 2, 3)),
    ("the inputs are written", "dense, fc", "relu", "the outputs are read"),
)


def test_a_row_for_each_block_and_the_peak() -> None:
    assert draw(TIMELINE, 1088, 1088).splitlines() == [
        "arena 1,088 bytes, lower bound 1,088 bytes; a column is a step, v the peak",
        "      offset |  v |        bytes  values",
        "           0 |..##|        1,024  z",
        "         128 |.###|           64  y",
        "           0 |##..|          128  x, flat",
        "peak 1,088 bytes at step 2 (relu):",
        "           1,024  z",
        "              64  y",
    ]


def test_a_plan_by_hand_has_totals_alone() -> None:
    assert str(MemoryPlan({"x": 0}, 64, 64)) == "arena 64 bytes, lower bound 64 bytes"


@pytest.mark.parametrize("steps", [1, 47, 48, 49, 500])
def test_it_fits_100_columns(steps: int) -> None:
    stays = tuple(Stay((f"value_{i}" * 9,), 64 * i, 64, i, i + 1) for i in range(steps))
    lines = draw(Timeline(stays, ("a step",) * (steps + 1)), 64 * steps, 128).splitlines()
    assert max(map(len, lines)) <= 100
    assert all("#" in line for line in lines[2 : steps + 2]), "each is alive in some column"


def test_the_peak_of_a_network_is_its_lower_bound() -> None:
    for model, x in ((zoo.squeezenet1_1().eval(), torch.randn(1, 3, 64, 64)), (zoo.mlp(8, 6, 4), torch.randn(2, 8))):
        plan = prepare(model, x, Lowering()).plan
        taken = [sum(stay.bytes for stay in plan.timeline.alive(t)) for t in range(len(plan.timeline.steps))]
        assert max(taken) == taken[plan.timeline.peak()] == plan.lower_bound
        assert {name for stay in plan.timeline.stays for name in stay.values} == set(plan.offsets)


def test_a_program_from_a_file_has_the_same_chart(tmp_path: Path) -> None:
    program = netopt.lower(nn.Sequential(nn.Linear(8, 4), nn.Softmax(1)), torch.randn(2, 8))
    program.save(tmp_path / "a.nopt")
    assert read_network(tmp_path / "a.nopt").plan.timeline == program.memory_plan.timeline
    assert str(netopt.load(tmp_path / "a.nopt").memory_plan) == str(program.memory_plan)
    assert "(dense, 0)" in program.memory_plan.chart()
