"""Which importers a capture uses."""

from __future__ import annotations

from typing import Any

import pytest

from netopt.graph.aten import IMPORTERS, OF_COMPLEX, Context, Imported, Importer


def record_importers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows that are used from now on, in order; filled while the test runs."""
    used: list[str] = []
    for table in (IMPORTERS, OF_COMPLEX):
        for row, importer in list(table.items()):
            monkeypatch.setitem(table, row, _recording(row, importer, used))
    return used


def _recording(row: str, importer: Importer, used: list[str]) -> Importer:
    def record(context: Context, args: dict[str, Any]) -> Imported:
        used.append(row)
        return importer(context, args)

    return record
