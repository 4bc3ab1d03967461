"""Every Python block of the README and the documentation runs, page by page, and their lists are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from netopt.ops import OPS
from netopt.ops.pointwise import FUNCTIONS

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
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


def test_the_glossary_leads_to_files() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| `([^`]+)` \|$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE
    )
    words = [word for word, _, _ in rows if word != "word"]
    assert words == sorted(set(words), key=str.lower)
    assert len(words) > 50
    for word, sentence, place in rows:
        # A module by its dotted name, which tests/test_paths.py looks for, or a file.
        assert place.startswith("netopt.") or any(
            (folder / place).exists() for folder in (ROOT, ROOT / "src" / "netopt")
        ), word
        assert sentence.endswith("."), word


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").iterdir()]
    assert len(set(numbers)) == len(numbers)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_navigation_has_every_page_once() -> None:
    listed = re.findall(r"[\w/]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


def test_links_to_headings_lead_somewhere() -> None:
    headings = {
        page: {_anchor(line) for line in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)} for page in PAGES
    }
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)]+)\)", page.read_text()):
            assert anchor in headings[(page.parent / target).resolve() if target else page], f"{page.name}: {anchor}"


def _anchor(heading: str) -> str:
    """As mkdocs makes it of a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
