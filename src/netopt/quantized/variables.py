"""What settings list of a network: its variables with their types, and its functions."""

from __future__ import annotations

from collections.abc import Callable

from netopt.graph import Graph
from netopt.numerics import NumberFormat
from netopt.ops import Convert, Relayout
from netopt.quantized.types import Variable, VariableKind, type_name

# What lowering puts between ops: the same numbers, stored otherwise.
_COPIES = (Convert, Relayout)
# More bits than these have codes of sums alone, such as biases, whose format follows from what is summed.
_MOST_BITS = 16


def variables_of(graph: Graph, format_of: Callable[[str], NumberFormat | None] | None = None) -> tuple[Variable, ...]:
    """The variables of real numbers: inputs, then each op's parameters and what it computes, in order.

    Copies that lowering makes, whole numbers and codes of sums are not listed: there is nothing to choose.

    Args:
        graph: a network, lowered or not.
        format_of: the format of a value or constant, if it is not that of the graph.
    """
    rows: dict[str, Variable] = {}

    def add(name: str, kind: VariableKind) -> None:
        format_ = (format_of(name) if format_of is not None else None) or graph.types[name].format
        is_sum = getattr(format_, "bits", 0) > _MOST_BITS
        if name not in rows and not format_.is_whole and not is_sum:
            rows[name] = Variable(name, kind, graph.types[name].shape, type_name(format_))

    for name in graph.inputs:
        add(name, "input")
    for node in graph.nodes:
        for name in node.inputs:
            if name in graph.constants:
                add(name, "parameter")
        if node.output in graph.outputs:
            add(node.output, "output")
        elif not isinstance(node.op, _COPIES):
            add(node.output, "buffer")
    return tuple(rows.values())


def functions_of(graph: Graph) -> tuple[tuple[str, str], ...]:
    """The name of what each op computes, and the op with what is fused into it, in order."""
    return tuple((node.output, node.op.label) for node in graph.nodes if not isinstance(node.op, _COPIES))
