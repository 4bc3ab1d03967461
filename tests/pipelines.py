"""The passes of lowering with its default options, but for copies that save memory: every concatenation is in place."""

from __future__ import annotations

from netopt.graph import Graph
from netopt.graph.passes import run_passes as run
from netopt.graph.passes.write_concat_in_place import write_concat_in_place
from netopt.program.options import Lowering
from netopt.program.pipeline import pipeline

PASSES = (*pipeline(Lowering())[:-1], write_concat_in_place)


def run_passes(graph: Graph) -> Graph:
    """The graph after all of them."""
    return run(graph, PASSES)
