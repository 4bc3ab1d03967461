"""What `make quick` runs: the tests of what has changed, and a few that see most of netopt.

    python -m tests.quick [--list] [options of pytest]

Changed is what differs from the commit at which the branch has left main, committed or not. A source file stands for
its tests, as tests/mirror.py has them, and a test file for itself. There is nothing to fill or to keep: it works in a
fresh clone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import pytest

from tests.mirror import SOURCES, TESTS, where_tested

ROOT = TESTS.parent
# About a minute on two cores: the faces of the package, and each floor once, from a module to a file and back.
ALWAYS = (
    "test_console.py",
    "test_errors.py",
    "test_lazy.py",
    "test_mirror.py",
    "test_public.py",
    "graph/passes/test_passes.py",
    "memory/test_check.py",
    "program/test_checks.py",
    "program/test_lower.py",
    "program/test_program.py",
    "transform/test_technique.py",
)
# Where main may be found; the first that is there.
_MAIN = ("origin/main", "main")


def changed_files() -> list[str]:
    """Files that differ from main, from the root of the repository; those that are gone are left out."""
    bases = (_git("merge-base", "HEAD", name) for name in _MAIN)
    base = next((lines[0] for lines in bases if lines), "HEAD")
    names = [*_git("diff", "--name-only", base), *_git("ls-files", "--others", "--exclude-standard")]
    return sorted({name for name in names if (ROOT / name).exists()})


def selected(changed: Iterable[str]) -> list[str]:
    """The test files of the changed files, then those that always run; each once, from the root of the repository."""
    tests: list[str] = []
    for path in (ROOT / name for name in changed):
        if path.is_relative_to(SOURCES) and path.suffix == ".py":
            tests += where_tested(path.relative_to(SOURCES).as_posix())
        elif path.is_relative_to(TESTS) and path.name.startswith("test_"):
            tests.append(path.relative_to(TESTS).as_posix())
        elif path.suffix == ".md":
            tests.append("test_docs.py")
    return [f"tests/{test}" for test in dict.fromkeys([*tests, *ALWAYS])]


def _git(*arguments: str) -> list[str]:
    """What git prints; nothing where it fails, as it does for a branch that is not there."""
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.split("\n")[:-1] if result.returncode == 0 else []


if __name__ == "__main__":
    files = selected(changed_files())
    if "--list" in sys.argv:
        print("\n".join(files))
    else:
        sys.exit(pytest.main([*sys.argv[1:], *files]))
