"""Every Python block of the README and the documentation runs, page by page, and their lists are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netopt.ops import OPS
from netopt.ops.pointwise import FUNCTIONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: str(p.relative_to(ROOT))
)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(BLOCK.findall(page.read_text()), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


def test_the_readme_has_an_example() -> None:
    assert BLOCK.search((ROOT / "README.md").read_text())


def test_the_page_of_ops_names_them_all() -> None:
    named = set(re.findall(r"`([a-z_0-9]+)`", (ROOT / "docs" / "ops.md").read_text()))
    assert set(OPS) | set(FUNCTIONS) <= named


def test_the_technique_of_the_documentation_has_fewer_than_40_lines() -> None:
    (first, *_) = BLOCK.findall((ROOT / "docs" / "writing_a_technique.md").read_text())
    assert "(netopt.Technique)" in first
    assert len([line for line in first.splitlines() if line.strip()]) < 40


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
