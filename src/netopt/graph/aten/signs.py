"""The sign of netopt's own layers; torch.sign, which is 0 at 0, is another function."""

from __future__ import annotations

from typing import Any

from netopt.graph.aten.context import Context, Imported, Importer
from netopt.ops import Sign


def _sign(context: Context, args: dict[str, Any]) -> Imported:
    return context.add(Sign(), args["x"])


IMPORTERS: dict[str, Importer] = {"netopt.sign.default": _sign}
