"""`make quick`: which tests stand for a change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import quick
from tests.quick import ALWAYS, ROOT, changed_files, selected

FEW = [f"tests/{test}" for test in ALWAYS]


def test_without_a_change_a_few_tests_run() -> None:
    assert selected([]) == FEW
    assert all((ROOT / test).exists() for test in FEW)


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        (["src/netopt/ops/concat.py"], ["tests/ops/test_ops.py", "tests/ops/test_serialize.py"]),
        (["src/netopt/memory/plan.py", "tests/memory/test_plan.py"], ["tests/memory/test_plan.py"]),
        (["docs/ops.md", "README.md"], ["tests/test_docs.py"]),
        (["tests/tolerance.py", "bench/machine.py", "src/netopt/py.typed", "Makefile"], []),
    ],
)
def test_the_tests_of_what_has_changed_come_first(changed: list[str], tests: list[str]) -> None:
    assert selected(changed) == [*tests, *FEW]


def test_a_test_that_always_runs_runs_once() -> None:
    assert sorted(selected(["src/netopt/program/checks.py"])) == sorted(FEW)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quick, "ROOT", tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    _git(tmp_path, "init", "--initial-branch=main")
    for name in ("kept.py", "changed.py", "gone.py"):
        (tmp_path / name).touch()
    _commit(tmp_path)
    return tmp_path


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True)


def _commit(folder: Path) -> None:
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "--message=m")


def test_what_a_branch_has_changed(repository: Path) -> None:
    assert changed_files() == []
    _git(repository, "checkout", "--quiet", "-b", "branch")
    (repository / "committed.py").touch()
    _commit(repository)
    (repository / "changed.py").write_text("pass")
    (repository / "gone.py").unlink()
    (repository / "new.py").touch()
    assert changed_files() == ["changed.py", "committed.py", "new.py"]
