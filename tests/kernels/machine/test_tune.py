"""Tuning: winners are measured once, remembered, and used."""

from __future__ import annotations

import itertools
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import netopt
from netopt.kernels.machine import tune as tuning
from netopt.kernels.machine.cpu import host_cpu
from netopt.kernels.machine.tune import Workload, cache_file, choose_schedules, tune
from netopt.kernels.parts.tile import TileSchedule
from netopt.kernels.registry import KERNELS
from netopt.numerics import BFLOAT16, FLOAT32, Array, NumberFormat
from netopt.ops import Dense, Pointwise
from tests.kernels.harness import problem_of


def workload(rows: int, outputs: int, streamed: bool = False) -> Workload:
    problem = problem_of(Dense(True), [torch.empty(rows, 32), torch.empty(outputs, 32), torch.empty(outputs)])
    return Workload(KERNELS[type(problem.op)], problem, (1, 2), streamed)


def table_of(work: Workload) -> list[TileSchedule]:
    return list(KERNELS[Dense].schedules(work.problem, host_cpu()))


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETOPT_CACHE_DIR", str(tmp_path))
    assert cache_file() == tmp_path / "schedules.json"
    monkeypatch.delenv("NETOPT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_file() == tmp_path / "x" / "netopt" / "schedules.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_file() == Path.home() / ".cache" / "netopt" / "schedules.json"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The place of the cache of a user without a home."""

    def fail() -> Any:
        raise RuntimeError("Could not determine home directory.")

    for name in ("NETOPT_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", fail)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"netopt-{os.getuid()}"


def test_a_user_without_a_home_has_a_cache_among_temporary_files(homeless: Path) -> None:
    work = workload(1, 40)
    assert choose_schedules([work], host_cpu()) == [table_of(work)[0]]
    assert not homeless.exists()
    tune([work], host_cpu())
    assert list(json.loads((homeless / "schedules.json").read_text())) == [work.key(host_cpu())]
    assert stat.S_IMODE(homeless.stat().st_mode) == 0o700


def test_a_temporary_folder_that_another_user_made_is_not_written_to(
    homeless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold a link to a file of ours."""
    mine = tmp_path / "mine"
    mine.write_text("{}")
    homeless.mkdir()
    (homeless / "schedules.json").symlink_to(mine)
    number = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: number)
    homeless.rename(tmp_path / f"netopt-{number}")
    with pytest.raises(netopt.NetoptError, match="is another user's; set NETOPT_CACHE_DIR to a folder"):
        tuning._remember("key", {"schedule": "s"})
    assert mine.read_text() == "{}"


def test_defaults_without_a_cache(cache_dir: Path) -> None:
    work = workload(1, 64)
    assert choose_schedules([work], host_cpu()) == [table_of(work)[0]]
    assert not cache_dir.exists()


def test_tuning_remembers_a_schedule_of_the_table_with_its_time(cache_dir: Path) -> None:
    work = workload(1, 40)
    tune([work], host_cpu())
    ((key, winner),) = json.loads((cache_dir / "schedules.json").read_text()).items()
    assert key == work.key(host_cpu())
    assert winner["schedule"] in [str(schedule) for schedule in table_of(work)]
    assert 0 < winner["ms"] <= winner["default_ms"]


def test_what_is_remembered_is_used_and_not_measured_again(cache_dir: Path) -> None:
    work = workload(1, 64)
    last = table_of(work)[-1]
    content = json.dumps({work.key(host_cpu()): {"schedule": str(last), "ms": 1.0, "default_ms": 2.0}})
    cache_dir.mkdir()
    cache_file().write_text(content)
    assert choose_schedules([work], host_cpu()) == [last]
    tune([work], host_cpu())
    assert cache_file().read_text() == content


def test_keys_tell_problems_apart() -> None:
    cpu = host_cpu()
    works = [workload(1, 64), workload(2, 64), workload(1, 65), workload(1, 64, streamed=True)]
    assert len({work.key(cpu) for work in works}) == 4
    assert cpu.target in works[0].key(cpu)
    assert "halide" in works[0].key(cpu)


def test_a_winner_that_the_table_no_longer_has_gives_way_to_the_default(cache_dir: Path) -> None:
    work = workload(1, 64)
    cache_dir.mkdir()
    cache_file().write_text(json.dumps({work.key(host_cpu()): {"schedule": "rows=99"}}))
    assert choose_schedules([work], host_cpu()) == [table_of(work)[0]]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 3}', "\x00\x01"])
def test_a_damaged_cache_is_said_so_and_replaced(content: str, cache_dir: Path) -> None:
    work = workload(1, 16)
    cache_dir.mkdir()
    cache_file().write_text(content)
    with pytest.warns(UserWarning, match="tuned schedules are ignored"):
        assert choose_schedules([work], host_cpu()) == [table_of(work)[0]]
    with pytest.warns(UserWarning, match="tuned schedules are ignored"):
        tune([work], host_cpu())
    assert list(json.loads(cache_file().read_text())) == [work.key(host_cpu())]


def test_interrupted_tuning_keeps_what_it_has(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = [workload(1, 16), workload(1, 24)]
    measure = tuning._measure

    def interrupt(work: Workload, cpu: object) -> dict[str, object]:
        if work is works[1]:
            raise KeyboardInterrupt
        return measure(work, host_cpu())

    monkeypatch.setattr(tuning, "_measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tune(works, host_cpu())
    assert list(json.loads(cache_file().read_text())) == [works[0].key(host_cpu())]
    measured: list[Workload] = []

    def resume(work: Workload, cpu: object) -> dict[str, object]:
        measured.append(work)
        return measure(work, host_cpu())

    monkeypatch.setattr(tuning, "_measure", resume)
    tune(works, host_cpu())
    assert measured == [works[1]]
    assert len(json.loads(cache_file().read_text())) == 2


def test_kernels_without_a_choice_are_not_measured(cache_dir: Path) -> None:
    tune([Workload(KERNELS[Pointwise], problem_of(Pointwise("relu"), [torch.empty(9)]), (), False)], host_cpu())
    assert not cache_dir.exists()


def test_streamed_weights_take_turns(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the weights that together exceed a cache: no call finds its own of the last time there."""
    copies: dict[bool, set[int]] = {True: set(), False: set()}
    in_turn = tuning._in_turn
    for streamed, seen in copies.items():
        monkeypatch.setattr(tuning, "_STREAM_POOL_BYTES", 100_000)
        monkeypatch.setattr(
            tuning, "_in_turn", lambda turns, clock, seen=seen: seen.add(len(turns)) or in_turn(turns, clock)
        )
        tune([workload(1, 64, streamed)], host_cpu())
    (number,) = copies[True]
    # The largest layout has at least the 64 x 33 numbers of weight and bias, and at most four times as many.
    assert 100_000 // (4 * 64 * 33 * 4) <= number <= 100_000 // (64 * 33 * 4)
    assert number > 1
    assert copies[False] == {1}


def test_constants_are_filled_with_samples_of_their_formats(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves, in whatever format: no denormals, and nothing that another format would read as something else."""
    seen: list[tuple[NumberFormat, Array]] = []
    bind = tuning.bind_kernel

    def watched(*arguments: Any) -> Any:
        problem, arrays = arguments[1], arguments[4]
        seen.extend((problem.inputs[index].format, arrays[index]) for index in (1, 2))
        return bind(*arguments)

    monkeypatch.setattr(tuning, "bind_kernel", watched)
    tensors = [torch.empty(1, 32), torch.empty(40, 32, dtype=torch.bfloat16), torch.empty(40)]
    tune([Workload(KERNELS[Dense], problem_of(Dense(True), tensors), (1, 2), False)], host_cpu())
    assert {format_ for format_, _ in seen} == {BFLOAT16, FLOAT32}
    for format_, array in seen:
        assert (array == format_.sample(array.shape)).all()
        assert format_.decode(format_.to_tensor(array, array.shape)).eq(0.5).all()


def test_a_tuned_program_uses_the_winner_and_computes_the_same(cache_dir: Path) -> None:
    model, x = nn.Sequential(nn.Linear(48, 40), nn.ReLU()), torch.randn(3, 48)
    plain = netopt.lower(model, x)
    tuned = netopt.lower(model, x, tune=True)
    (winner,) = json.loads(cache_file().read_text()).values()
    assert winner["schedule"] in tuned.summary()
    # Same sums in another order: 48 products and a bias, each rounding at most 2^-24 of the terms' magnitudes.
    bound = 50 * 2.0**-24 * (x.abs() @ model[0].weight.abs().T + model[0].bias.abs())
    assert ((tuned(x) - plain(x)).abs() <= 2 * bound).all()


def test_no_schedule_finds_the_weights_of_another_in_the_cache() -> None:
    used: list[tuple[str, int]] = []
    clock = itertools.count()
    calls = {
        name: tuning._in_turn([[(lambda at, name=name: used.append((name, at)), (turn,))] for turn in range(3)], clock)  # type: ignore[misc, list-item]
        for name in "ab"
    }
    for _ in range(2):
        for call in calls.values():
            call()
    assert used == [("a", 0), ("b", 1), ("a", 2), ("b", 0)]
