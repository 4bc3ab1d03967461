"""The passes: each a plain function from graph to graph, in a file of its own.

`netopt.program.pipeline` lists them in their order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from netopt.graph.graph import Graph
from netopt.graph.verify import verify

Pass = Callable[[Graph], Graph]


def run_passes(graph: Graph, passes: Iterable[Pass]) -> Graph:
    """Run the passes in their order, each once, and verify the graph after each.

    With the environment variable NETOPT_DUMP set to a folder, the graph is written there as text after each pass.
    """
    folder = os.environ.get("NETOPT_DUMP")
    _dump(graph, folder, "00_captured")
    for number, run in enumerate(passes, 1):
        graph = run(graph)
        verify(graph)
        _dump(graph, folder, f"{number:02d}_{pass_name(run)}")
    return graph


def pass_name(run: Pass) -> str:
    """The name of the pass's function, whatever it was given beside the graph."""
    return str((run.func if isinstance(run, partial) else run).__name__)


def _dump(graph: Graph, folder: str | None, name: str) -> None:
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.txt").write_text(f"{graph}\n")
