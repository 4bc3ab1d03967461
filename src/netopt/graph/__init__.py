"""The typed graph and what it means; `capture` and `passes`, which need far more, are imported from their files."""

from netopt.graph.graph import Graph, Node
from netopt.graph.interpret import interpret
from netopt.graph.signature import Nesting, Signature
from netopt.graph.verify import verify

__all__ = ["Graph", "Nesting", "Node", "Signature", "interpret", "verify"]
