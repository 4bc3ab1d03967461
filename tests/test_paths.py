"""Files, folders and modules that the documentation, docstrings and comments name are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
CODE = [path for folder in ("src", "tests", "bench", "examples") for path in (ROOT / folder).rglob("*.py")]
# Where a path in a text may begin, beside the folder of the text.
FOLDERS = (ROOT, ROOT / "src" / "netopt", ROOT / "tests")
# A file in backquotes, a folder in backquotes, or a file of a folder anywhere; `ops/<op>.py` is none of these.
PATH = re.compile(r"`((?:[\w-]+/)*\w+\.py|(?:[\w-]+/)+)`|(?<![\w/.<>*`-])((?:[\w-]+/)+\w+\.py)\b")
NAME = re.compile(r"(?<![\w./-])netopt(?:\.\w+)+")
ELSEWHERE = {"binary_convnet.py"}  # of CNTK
NO_PYTHON = {
    "netopt.sign",
    "netopt.sign.default",
    "netopt.structure",
    "netopt.checksum",
}  # an op of torch; keys of files
# They name what is not there, to say what happens then.
MADE_UP = {
    "tests/mirror.py",
    "tests/test_mirror.py",
    "tests/test_quick.py",
    "tests/test_lazy.py",
    "tests/test_paths.py",
}


def _label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _paths(line: str) -> set[str]:
    return {first or second for first, second in PATH.findall(line)} - ELSEWHERE


def _missing(text: Path) -> list[str]:
    """The paths that are not there. A file may lie in a folder that the same line names."""
    missing = []
    for line in text.read_text().splitlines():
        paths = _paths(line)
        named = [folder / path for folder in FOLDERS for path in paths if path.endswith("/")]
        places = (*FOLDERS, text.parent, *named)
        missing += [path for path in sorted(paths) if not any((place / path).exists() for place in places)]
    return missing


def _is_there(name: str) -> bool:
    """Whether the dotted name leads to a module, or to something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("texts", [PAGES, CODE], ids=["pages", "code"])
def test_named_files_are_there(texts: list[Path]) -> None:
    missing = {_label(text): _missing(text) for text in texts if _label(text) not in MADE_UP}
    assert {text: paths for text, paths in missing.items() if paths} == {}


@pytest.mark.parametrize("texts", [PAGES, CODE], ids=["pages", "code"])
def test_named_modules_and_what_is_in_them_are_there(texts: list[Path]) -> None:
    named: dict[str, str] = {}
    for text in texts:
        if _label(text) not in MADE_UP:
            named |= dict.fromkeys(NAME.findall(text.read_text()), _label(text))
    assert {name: where for name, where in named.items() if name not in NO_PYTHON and not _is_there(name)} == {}


def test_a_file_may_lie_in_a_folder_of_the_same_line(tmp_path: Path) -> None:
    text = tmp_path / "text.md"
    text.write_text("`memory/`: `plan.py`, `dense.py`\n`plan.py`\n`errors.py` and `memory/plan.py`\n")
    assert _missing(text) == ["dense.py", "plan.py"]


def test_what_counts_as_a_path() -> None:
    text = "`ops/dense.py`, see memory/check.py, `file.py` in `kernels/parts/`; not `ops/<op>.py`, x/y.md, `*.py`"
    assert _paths(text) == {"ops/dense.py", "memory/check.py", "file.py", "kernels/parts/"}


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("netopt.ops.dense", True),
        ("netopt.ops.dense.Dense.reference", True),
        ("netopt.Program.save", True),
        ("netopt.ops.densest", False),
        ("netopt.ops.dense.Denser", False),
    ],
)
def test_what_is_there(name: str, there: bool) -> None:
    assert _is_there(name) is there
