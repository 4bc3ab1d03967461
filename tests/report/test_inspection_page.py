"""The page of an inspection: whole HTML that needs nothing else, with what the inspection says."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import torch

from netopt.report.inspection import Inspection, inspect_network
from netopt.report.inspection_page import page_of
from tests.report.code_network import code_network

DATA = torch.tensor([[1.0, 2.0, 0.0], [100.0, 1.0, -1.0]])
# Elements without an end.
_VOID = {"meta", "br"}


class _Checker(HTMLParser):
    """Elements in the order in which they begin, and their text; asserts that each ends in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _checked(inspection: Inspection, title: str = "net.nopt") -> _Checker:
    page = page_of(inspection, title)
    assert page.startswith("<!DOCTYPE html>\n")
    checker = _Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    assert not {"script", "link", "img", "iframe"} & set(checker.seen)
    assert not {"src", "href"} & {name for name, _ in checker.attributes}
    assert "http" not in page and "url(" not in page
    return checker


def test_figures_and_plots() -> None:
    checker = _checked(inspect_network(code_network(), [DATA]))
    text = " ".join(checker.text)
    for part in ("net.nopt", "Arena 128 bytes", "fc1", "UFIXED8_2", "16.667 %", "x: FIXED8_4 after input"):
        assert part in text
    # The memory, two values with codes, one weight with codes.
    assert checker.seen.count("svg") == 4
    assert checker.seen.count("figure") == 3
    assert checker.seen.count("tr") == 4
    assert len([1 for name, value in checker.attributes if (name, value) == ("class", "before")]) == 2


def test_without_data_there_are_no_figures_of_rounding() -> None:
    checker = _checked(inspect_network(code_network()))
    assert "saturated" not in " ".join(checker.text)
    assert checker.seen.count("figure") == 1


def test_names_are_escaped() -> None:
    inspection = inspect_network(code_network(), [DATA])
    steps = tuple(dataclasses.replace(step, value='<b>"&', layer="<i>") for step in inspection.steps)
    checker = _checked(dataclasses.replace(inspection, steps=steps), "<script>")
    assert "b" not in checker.seen and "i" not in checker.seen
    assert any('<b>"&' in text for text in checker.text)


def test_notes_and_empty_networks() -> None:
    assert "Some note." in " ".join(_checked(Inspection((), 0, 0, 0, notes=("some note",))).text)


def test_the_highest_bar_fills_its_plot_and_every_number_is_finite() -> None:
    page = page_of(inspect_network(code_network(), [DATA]), "x")
    heights = [float(height) for height in re.findall(r'height="([^"]+)"', page)]
    assert max(heights) == 110.0
    assert not re.search(r"\b(nan|inf)\b", page)
