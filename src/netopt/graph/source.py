"""Models that are graphs already: they say themselves what `capture` and the first passes find of others."""

from __future__ import annotations

from abc import ABC, abstractmethod

from netopt.example import Example
from netopt.graph.graph import Graph
from netopt.graph.signature import Signature


class GraphSource(ABC):
    """A module that lowering does not trace."""

    @abstractmethod
    def as_graph(self, example: Example) -> tuple[Graph, Signature]:
        """Its graph for inputs of these shapes, after the passes that give a network its structure, with formats.

        Raises:
            InvalidType, InvalidArgument: the example cannot be used.
            UnsupportedModel: what it was made of cannot be traced for such inputs.
        """
