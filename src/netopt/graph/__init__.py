"""The typed graph, its capture from PyTorch, its passes and its interpreter."""

from netopt.graph.capture import Signature, capture
from netopt.graph.graph import Graph, Node
from netopt.graph.interpret import interpret
from netopt.graph.passes import run_passes
from netopt.graph.signature import Structure
from netopt.graph.verify import verify

__all__ = ["Graph", "Node", "Signature", "Structure", "capture", "interpret", "run_passes", "verify"]
